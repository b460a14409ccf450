//! Proof-of-possession linking: the challengePassword of a request (RFC 7030 §3.5, RFC 9266).

use crate::support::device::{new_key, request};
use crate::support::wire::post;
use crate::support::{Answer, Device, TestServer, Tls};
use crate::{REENROLL, assert_refused, server, server_with};

async fn reenroll(
    server: &TestServer,
    device: &Device,
    tls: &Tls,
    password: impl FnOnce(&crate::support::wire::Wire) -> Option<String>,
) -> Answer {
    let mut wire = server.connect(Some(device), tls).await.unwrap();
    let password = password(&wire);
    let subject = device.certificate.subject();
    let body = request(subject, &new_key(), &[], password.as_deref());
    wire.send(&post(REENROLL, &body)).await.unwrap()
}

#[tokio::test]
async fn e_14_e_20_the_exporter_of_the_session_is_accepted() {
    let server = server().await;
    let device = server.device("device-1");
    let binding = |wire: &crate::support::wire::Wire| Some(wire.channel_binding());
    reenroll(&server, &device, &Tls::tls13(), binding).await.certificate();
    server.stop().await;
}

#[tokio::test]
async fn e_20_anything_else_is_refused() {
    let server = server().await;
    let device = server.device("device-1");
    let other = server.connect(Some(&device), &Tls::tls13()).await.unwrap().channel_binding();
    for password in [other.as_str(), "bogus", ""] {
        let answer = reenroll(&server, &device, &Tls::tls13(), |_| Some(password.to_owned())).await;
        assert_refused(&answer, 403, "challenge-password-wrong");
    }
    server.stop().await;
}

/// There is no exporter that TLS 1.2 clients use: never ignored, so refused.
#[tokio::test]
async fn e_20_on_tls_1_2_every_one_is_refused() {
    let server = server().await;
    let device = server.device("device-1");
    let binding = |wire: &crate::support::wire::Wire| Some(wire.channel_binding());
    let answer = reenroll(&server, &device, &Tls::tls12(), binding).await;
    assert_refused(&answer, 403, "channel-binding-unavailable");
    server.stop().await;
}

#[tokio::test]
async fn e_21_a_profile_may_demand_it() {
    let server = server_with("[est.profile]\nrequire_challenge_password = true").await;
    let device = server.device("device-1");
    let answer = reenroll(&server, &device, &Tls::tls13(), |_| None).await;
    assert_refused(&answer, 400, "challenge-password-missing");
    let binding = |wire: &crate::support::wire::Wire| Some(wire.channel_binding());
    reenroll(&server, &device, &Tls::tls13(), binding).await.certificate();
    server.stop().await;
}

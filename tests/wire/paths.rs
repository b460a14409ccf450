//! Paths, labels and methods.

use crate::support::wire::{get_with, post};
use crate::{CACERTS, ENROLL, REENROLL, assert_refused, server, server_with};

#[tokio::test]
async fn e_02_the_three_operations_are_there() {
    let server = server().await;
    let device = server.device("device-1");
    assert_eq!(server.get(None, CACERTS).await.status, 200);
    for path in [ENROLL, REENROLL] {
        let answer = server.send(Some(&device), &post(path, &device.request().1)).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn e_03_what_is_not_offered_is_404_or_501() {
    let server = server().await;
    let device = server.device("device-1");
    for operation in ["serverkeygen", "fullcmc"] {
        let request = post(&format!("/.well-known/est/{operation}"), "");
        let answer = server.send(Some(&device), &request).await.unwrap();
        assert_refused(&answer, 501, "operation-not-offered");
    }
    for path in
        ["/", "/.well-known/est", "/.well-known/est/cacerts/x", "/.well-known/est/a/b/cacerts"]
    {
        assert_refused(&server.get(None, path).await, 404, "path-unknown");
    }
    server.stop().await;
}

#[tokio::test]
async fn e_04_the_same_services_are_under_a_label() {
    let server = server_with("[est.labels.thirty]\nvalidity_days = 30").await;
    let device = server.device("device-1");
    let unlabelled = server.get(None, CACERTS).await;
    let labelled = server.get(None, "/.well-known/est/thirty/cacerts").await;
    assert_eq!(unlabelled.body, labelled.body);
    for operation in ["simpleenroll", "simplereenroll"] {
        let path = format!("/.well-known/est/thirty/{operation}");
        let answer = server.send(Some(&device), &post(&path, &device.request().1)).await.unwrap();
        let validity = answer.certificate().validity();
        assert_eq!(validity.not_after.0 - validity.not_before.0, 30 * 24 * 3600 + 300);
    }
    server.stop().await;
}

#[tokio::test]
async fn e_04_an_unknown_label_is_404() {
    let server = server().await;
    let device = server.device("device-1");
    let unknown = server.get(None, "/.well-known/est/nobody/cacerts").await;
    assert_refused(&unknown, 404, "label-unknown");
    let request = post("/.well-known/est/nobody/simplereenroll", &device.request().1);
    let unknown = server.send(Some(&device), &request).await.unwrap();
    assert_refused(&unknown, 404, "label-unknown");
    server.stop().await;
}

/// A device whose configured URL ends in a slash.
#[tokio::test]
async fn doubled_slashes_are_passed_over() {
    let server = server().await;
    let device = server.device("device-1");
    for path in ["/.well-known/est//simplereenroll", "//.well-known/est/fioconfig//simplereenroll"]
    {
        let request = post(path, &device.request().1);
        server.send(Some(&device), &request).await.unwrap().certificate();
    }
    server.stop().await;
}

/// strongSwan reaches a label by a URL that ends in a question mark.
#[tokio::test]
async fn a_query_is_passed_over() {
    let server = server().await;
    let path = "/.well-known/est/fioconfig/cacerts?/.well-known/est/cacerts";
    assert_eq!(server.get(None, path).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn e_27_e_31_other_methods_are_405_and_say_which_works() {
    let server = server().await;
    let device = server.device("device-1");
    let wrong = [(post(CACERTS, ""), "GET"), (get_with(ENROLL, ""), "POST")];
    for (request, right) in wrong {
        let answer = server.send(Some(&device), &request).await.unwrap();
        assert_refused(&answer, 405, "method-not-allowed");
        assert_eq!(answer.header("Allow"), Some(right));
    }
    server.stop().await;
}

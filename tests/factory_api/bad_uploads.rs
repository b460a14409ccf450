//! What is wrong with an upload is told by field, and nothing of it takes effect.

use estd::clock::UnixTime;
use estd::model::FactoryName;
use serde_json::{Value, json};

use crate::offline::{CERTS, Field, crl, meta, pem, root};
use crate::on_both_ledgers;
use crate::support::Device;

const PEM_OF_NOTHING: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const BROKEN_PEM: &str = "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n";

on_both_ledgers! {
    async fn what_is_wrong_is_told_by_field_and_nothing_is_half_applied(backend: Backend) {
        let (field, local) = Field::set_up(backend).await;
        let shown = field.fioctl.get(CERTS).await.json(200);
        let known = shown["ca-crt"].as_str().unwrap().to_owned();
        let csrs = field.request(&["ca-csr", "est-tls-csr", "tls-csr"]).await;
        let good = field.sign_server(&csrs["tls-csr"]);

        let stranger = root("acme");
        let random = aws_lc_rs::rand::SystemRandom::new();
        let now = UnixTime::now();
        let other_factory = FactoryName::parse("other").unwrap();
        let foreign_ou = field.root.device_ca(&other_factory, "line", now, &random).unwrap();
        let acme = FactoryName::parse("acme").unwrap();
        let strangers_ca = stranger.device_ca(&acme, "line", now, &random).unwrap();
        let leaf = Device::new(&field.root, "acme", "leaf").certificate;
        let serial = local.certificate().serial();
        let entry = [(serial, Some(9))];
        let fresh = now..now.plus(900);
        let unknown = strangers_ca.certificate().serial();
        let two_lists = field.crl(&entry) + &field.crl(&[]);
        let with_known = |certificate: &str| known.clone() + certificate;

        let cases: Vec<(&str, String, &str)> = vec![
            ("tls-crt", "x".to_owned(), "there is no certificate in it"),
            ("tls-crt", BROKEN_PEM.to_owned(), "not a well-formed PEM text"),
            ("tls-crt", PEM_OF_NOTHING.to_owned(), "not a well-formed certificate"),
            ("tls-crt", pem(&good) + &pem(&good), "2 certificates"),
            ("tls-crt", pem(&field.sign_server(&csrs["est-tls-csr"])), "key of est-tls-csr"),
            ("est-tls-crt", pem(&good), "key of tls-csr"),
            ("tls-crt", pem(&field.sign_ca(&csrs["ca-csr"])), "key of device-ca-csr"),
            ("tls-crt", pem(&leaf), "no key made here waits for it"),
            ("tls-crt", pem(field.root.certificate()), "the Factory's root itself"),
            ("tls-crt", pem(strangers_ca.certificate()), "not signed by the Factory's root"),
            ("ca-crt", with_known(BROKEN_PEM), "not a well-formed PEM text"),
            ("ca-crt", "no block".to_owned(), "there is no certificate in it"),
            ("ca-crt", with_known(&pem(field.root.certificate())), "the Factory's root itself"),
            ("ca-crt", with_known(&pem(stranger.certificate())), "not signed by the Factory's"),
            ("ca-crt", with_known(&pem(strangers_ca.certificate())), "not signed by the Factory's"),
            ("ca-crt", with_known(&pem(foreign_ou.certificate())), "organizational unit is other"),
            ("ca-crt", with_known(&pem(&leaf)), "not a CA certificate"),
            ("ca-crt", with_known(&pem(&good)), "it is a server certificate"),
            ("ca-revoke-crl", "x".to_owned(), "one X509 CRL is wanted"),
            ("ca-revoke-crl", pem(&leaf), "no X509 CRL"),
            ("ca-revoke-crl", two_lists, "2 blocks are in it"),
            ("ca-revoke-crl", crl(&stranger, &entry, fresh.clone()), "not signed by the Factory's"),
            ("ca-revoke-crl", crl(&local, &entry, fresh.clone()), "not signed by the Factory's"),
            ("ca-revoke-crl", crl(&field.root, &entry, now.plus(-900)..now.plus(-60)), "it is valid"),
            ("ca-revoke-crl", crl(&field.root, &entry, now.plus(60)..now.plus(900)), "it is valid"),
            ("ca-revoke-crl", field.crl(&[entry[0], (unknown, Some(9))]), "no Device CA of this"),
            ("ca-crl", "x".to_owned(), "knows no such field"),
        ];
        for (name, value, reason) in &cases {
            // What is right in the same upload does not take effect either.
            let mut body = json!({ "tls-crt": pem(&good), "change-meta": meta() });
            body[name] = json!(value);
            let why = field.fioctl.patch(CERTS, &body).await.field(400, name);
            assert!(why.contains(reason), "{name}: {reason:?} is not in {why:?}");
        }
        let why = field.patch("ca-revoke-crl", &field.crl(&[(unknown, None)])).await;
        assert!(why.field(400, "ca-revoke-crl").contains(&unknown.to_decimal()));
        for body in ["", "x", "[]", "\"x\""] {
            field.fioctl.send("PATCH", CERTS, body).await.json(400);
        }
        field.fioctl.patch(CERTS, &json!({ "tls-crt": 7 })).await.field(400, "tls-crt");

        let mut after = field.fioctl.get(CERTS).await.json(200);
        assert_eq!(after["change-meta"].take(), shown["change-meta"]);
        let mut before = shown.clone();
        before["change-meta"] = Value::Null;
        assert_eq!(after, before);
        // The key still waits.
        field.patch("tls-crt", &pem(&good)).await.json(200);
        field.server.stop().await;
    }

    async fn every_wrong_field_is_told_at_once(backend: Backend) {
        let field = Field::new(backend).await;
        let body = json!({ "root-crt": "x", "tls-crt": "y", "ca-crt": "z", "ca-revoke-crl": "-" });
        let answer = field.fioctl.patch(CERTS, &body).await;
        for name in ["root-crt", "tls-crt", "ca-crt", "ca-revoke-crl"] {
            answer.field(400, name);
        }
        let leaf = Device::new(&field.root, "acme", "leaf").certificate;
        let why = field.patch("root-crt", &pem(&leaf)).await.field(400, "root-crt");
        assert!(why.contains("its own key has signed"), "{why}");
        let why = field.patch("tls-crt", &pem(&leaf)).await.field(400, "tls-crt");
        assert!(why.contains("no root yet"), "{why}");
        field.fioctl.get(CERTS).await.json(206);
        field.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_refused_upload_leaves_one_row() {
    let (field, _) = Field::set_up(crate::support::Backend::Sqlite).await;
    let count = field.server.audit().await.len();
    field.patch("tls-crt", "x").await.json(400);
    field.patch("root-crt", &pem(field.root.certificate())).await.json(409);
    let rows = field.rows_after(count).await;
    let refused = |row: &(String, String, String)| (row.0.clone(), row.1.clone());
    let expected = ("upload".to_owned(), "refused".to_owned());
    let rows: Vec<_> = rows.iter().map(refused).collect();
    assert_eq!(rows, [expected.clone(), expected]);
    field.server.stop().await;
}

//! When the server wants a certificate to be renewed (draft-ietf-lamps-est-renewal-info).

use data_encoding::BASE64URL_NOPAD;
use hyper::Method;
use serde::Deserialize;

use super::connection::Connection;
use super::{ClientError, Window};
use crate::clock::UnixTime;
use crate::pki::Certificate;

/// What the server says of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalInfo {
    /// When to renew.
    pub window: Window,
    /// In how many seconds to ask again, if it says so.
    pub retry_after: Option<u64>,
    /// What time it is by the server's clock, if it says so: the device's may be behind.
    pub server_time: Option<UnixTime>,
}

impl Connection {
    /// When the server wants a certificate to be renewed; `None` if it does not say.
    ///
    /// # Errors
    /// When the server cannot say now, or says something else than a window.
    pub async fn renewal_info(
        &mut self,
        certificate: &Certificate,
    ) -> Result<Option<RenewalInfo>, ClientError> {
        let Some(authority_key) = self.authority_key(certificate).await? else { return Ok(None) };
        let key = BASE64URL_NOPAD.encode(&authority_key);
        let serial = BASE64URL_NOPAD.encode(certificate.serial().contents());
        let operation = format!("renewal-info/{key}.{serial}");
        let mut answer = self.send(Method::GET, &operation, None).await?;
        if answer.status == 404 {
            // A server that sees the device for the first time knows its certificate only now.
            answer = self.send(Method::GET, &operation, None).await?;
        }
        let answer = match answer.success() {
            Err(ClientError::Status { status: 404 | 405 | 501, .. }) => return Ok(None),
            other => other?,
        };
        let window = read(&answer.body).map_err(ClientError::NotRenewalInfo)?;
        let (retry_after, server_time) = (answer.retry_after(), answer.date());
        Ok(Some(RenewalInfo { window, retry_after, server_time }))
    }

    /// The identifier of the key that signed the certificate. Where the certificate does not say,
    /// its issuer's does, if that is among the CA certificates of the server.
    async fn authority_key(
        &mut self,
        certificate: &Certificate,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        if let Some(key) = &certificate.extensions().authority_key_identifier {
            return Ok(Some(key.clone()));
        }
        let mut authorities = self.cacerts().await?.into_iter();
        let issuer = authorities.find(|ca| certificate.verify_issued_by(ca).is_ok());
        Ok(issuer.map(|ca| ca.key_identifier()).transpose()?)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    suggested_window: WrittenWindow,
}

#[derive(Deserialize)]
struct WrittenWindow {
    start: String,
    end: String,
}

fn read(body: &[u8]) -> Result<Window, String> {
    let Written { suggested_window: WrittenWindow { start, end } } =
        serde_json::from_slice(body).map_err(|why| why.to_string())?;
    let time = |text: &str| UnixTime::parse(text).ok_or_else(|| format!("{text:?} is no time"));
    let window = Window { start: time(&start)?, end: time(&end)? };
    if window.end < window.start {
        return Err(format!("its window ends at {end}, before it begins"));
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::{UnixTime, Window, read};

    #[test]
    fn windows_are_read_and_what_is_none_is_told() {
        let text = |start: &str, end: &str| {
            format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}},"more":1}}"#)
        };
        let (start, end) = ("2027-01-15T08:00:00Z", "2027-01-16T08:00:00Z");
        let window = Window { start: UnixTime(1_800_000_000), end: UnixTime(1_800_086_400) };
        assert_eq!(read(text(start, end).as_bytes()), Ok(window));
        for wrong in [text(end, start), text(start, "soon"), "{}".to_owned(), String::new()] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

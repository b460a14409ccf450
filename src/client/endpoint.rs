//! Where a server is: a host, which may have several addresses, and a port.

use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use hyper::Uri;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::ClientError;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    /// As the URL has it.
    authority: String,
}

impl Endpoint {
    /// That of a URL; without a port in it, this one.
    ///
    /// # Errors
    /// When it has no host, or its port is none.
    pub fn of(uri: &Uri, default_port: u16) -> Result<Self, ClientError> {
        let unusable = |reason| ClientError::Url { url: uri.to_string(), reason };
        let authority = uri.authority().ok_or_else(|| unusable("it has no host"))?;
        let host = authority.host();
        let without_user = authority.as_str().rsplit('@').next().unwrap_or_default();
        if authority.port_u16().is_none() && without_user != host {
            return Err(unusable("its port is not a number from 0 to 65535"));
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: without_user.to_owned(),
        })
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What the server's certificate must bear.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, ClientError> {
        ServerName::try_from(self.host.clone()).map_err(|_| ClientError::Url {
            url: self.authority.clone(),
            reason: "the host is no name that a certificate could bear",
        })
    }

    /// Opens a TCP connection, at the first of its addresses that answers.
    pub(super) async fn connect(&self, within: Duration) -> Result<TcpStream, ClientError> {
        let connected = async {
            let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
            first_that_answers(&addresses, within).await
        };
        let failed = |source| ClientError::Connection { host: self.to_string(), source };
        connected.await.map_err(failed)
    }
}

/// Each address gets an equal share of the time, so that one that loses every packet takes none from
/// the others, and one share is left for what comes after.
async fn first_that_answers(addresses: &[SocketAddr], within: Duration) -> io::Result<TcpStream> {
    let shares = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match timeout(within / shares, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) => failed = why,
            Err(_elapsed) => {
                let silent = format!("{address} does not answer");
                failed = io::Error::new(io::ErrorKind::TimedOut, silent);
            }
        }
    }
    Err(failed)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// A name with an address of IPv6, say, in a network that loses its packets.
    #[tokio::test]
    async fn an_address_that_does_not_answer_keeps_nobody_from_the_next() {
        let listen = |backlog| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            socket.listen(backlog).unwrap()
        };
        let (full, good) = (listen(0), listen(1));
        let [silent, good_address] = [&full, &good].map(|one| one.local_addr().unwrap());
        let within = Duration::from_millis(600);
        let mut waiting = Vec::new();
        let why = loop {
            match first_that_answers(&[silent], within).await {
                Ok(stream) => waiting.push(stream),
                Err(why) => break why,
            }
        };
        assert_eq!(why.to_string(), format!("{silent} does not answer"));
        let stream = first_that_answers(&[silent, good_address], within).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good_address);
        assert_eq!(
            first_that_answers(&[], within).await.unwrap_err().to_string(),
            "it has no address"
        );
    }

    #[test]
    fn endpoints_are_read_from_urls() {
        for (url, shown, authority) in [
            ("https://est.example.com", "est.example.com:443", "est.example.com"),
            ("https://est.example.com:8443/x", "est.example.com:8443", "est.example.com:8443"),
            ("https://[::1]:8443", "[::1]:8443", "[::1]:8443"),
            ("https://[::1]/", "[::1]:443", "[::1]"),
            ("https://user@127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"),
        ] {
            let endpoint = Endpoint::of(&url.parse().unwrap(), 443).unwrap();
            assert_eq!((&*endpoint.to_string(), endpoint.authority()), (shown, authority));
            endpoint.server_name().unwrap();
        }
    }

    /// It must not become another port.
    #[test]
    fn a_port_that_is_none_is_refused() {
        for url in ["https://est.example.com:84433", "http://h:99999/", "https://[::1]:65536"] {
            let why = Endpoint::of(&url.parse().unwrap(), 443).unwrap_err().to_string();
            assert!(why.contains("its port is not a number from 0 to 65535"), "{why}");
        }
    }
}

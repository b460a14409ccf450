//! Who connects: devices, each with a key, a certificate and a request of its own, all made before
//! anything is measured; and strangers without a certificate.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use estd::pki::{Fingerprint, from_est_text, read_certs_only};
use rustls::{ClientConfig, ClientConnection, Stream};
use rustls_pki_types::ServerName;

use crate::device::Device;
use crate::handshake::{client_config, trust};
use crate::server::{FACTORY, HOST, Server};

const TIMEOUT: Duration = Duration::from_mins(1);

pub struct Member {
    tls: Arc<ClientConfig>,
    /// The body of its re-enrolment, and the key that it wants a certificate for.
    request: Option<(String, Fingerprint)>,
}

/// What a member asks for.
#[derive(Clone, Copy)]
pub enum Exchange {
    CaCertificates,
    Reenrolment,
}

/// New devices from the factory line, which the server does not know yet.
pub fn devices(server: &Server, count: usize, post_quantum: bool) -> Vec<Member> {
    let trust = trust(&server.root);
    let device = |_| {
        let mut name = [0; 16];
        rand::fill(&mut name).unwrap();
        let device = Device::new(&server.factory_line, FACTORY, &HEXLOWER.encode(&name));
        let (key, body) = device.request();
        Member {
            tls: client_config(&trust, Some(&device), post_quantum),
            request: Some((body, key.public_key().fingerprint())),
        }
    };
    (0..count).map(device).collect()
}

/// Members without a certificate.
pub fn strangers(server: &Server, count: usize, post_quantum: bool) -> Vec<Member> {
    let tls = client_config(&trust(&server.root), None, post_quantum);
    (0..count).map(|_| Member { tls: Arc::clone(&tls), request: None }).collect()
}

/// Every member asks on a new connection, `at_once` of them at a time; their answers in order.
pub fn run(
    server: &Server,
    members: &[Member],
    at_once: usize,
    exchange: Exchange,
) -> Vec<Vec<u8>> {
    thread::scope(|scope| {
        let parts = members.chunks(members.len().div_ceil(at_once));
        let threads: Vec<_> = parts
            .map(|part| {
                let ask = |member: &Member| member.ask(server.address, exchange).unwrap();
                scope.spawn(move || part.iter().map(ask).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Panics unless everybody got what it asked for.
pub fn check(members: &[Member], exchange: Exchange, answers: &[Vec<u8>]) {
    assert_eq!(members.len(), answers.len());
    for (member, body) in members.iter().zip(answers) {
        let certificates = read_certs_only(&from_est_text(body).unwrap()).unwrap();
        let keys: Vec<_> = certificates.iter().map(|one| one.public_key().fingerprint()).collect();
        match (exchange, &member.request) {
            (Exchange::Reenrolment, Some((_, key))) => assert_eq!(keys, [*key]),
            _ => assert!(!keys.is_empty()),
        }
    }
}

impl Member {
    /// The body of the answer.
    fn ask(&self, address: SocketAddr, exchange: Exchange) -> io::Result<Vec<u8>> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let mut tls =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = Stream::new(&mut tls, &mut tcp);
        stream.write_all(&self.http(exchange))?;
        let body = read_answer(&mut stream)?;
        tls.send_close_notify();
        tls.write_tls(&mut tcp)?;
        Ok(body)
    }

    fn http(&self, exchange: Exchange) -> Vec<u8> {
        let path = "/.well-known/est";
        let text = match (exchange, &self.request) {
            (Exchange::Reenrolment, Some((body, _))) => format!(
                "POST {path}/simplereenroll HTTP/1.1\r\nHost: {HOST}\r\n\
                 Content-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            _ => format!("GET {path}/cacerts HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        };
        text.into_bytes()
    }
}

/// Reads a 200 to its Content-Length.
fn read_answer(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let (true, Some(length)) = (head.starts_with("HTTP/1.1 200 "), length) else {
            return Err(io::Error::other(String::from_utf8_lossy(&bytes).into_owned()));
        };
        let whole = end + 4 + length.parse::<usize>().map_err(io::Error::other)?;
        if bytes.len() >= whole {
            return Ok(bytes.split_off(end + 4));
        }
    }
}

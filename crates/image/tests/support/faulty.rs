//! A registry that serves one image and misbehaves as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::fixture::{Fixture, OCI_MANIFEST, digest};

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_blob(&self, bytes: &[u8]) -> bool {
        self.path.ends_with(&digest(bytes).to_string())
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Says this length instead of the body's.
    pub claimed_length: Option<usize>,
    /// Cuts the connection after so many bytes of the body.
    pub cut_after: Option<usize>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }
}

type Fault = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

pub struct Faulty {
    pub host: String,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Faulty {
    /// Serves `image` under every name and tag; `fault` may answer instead, given the request and
    /// how often the same one came before.
    pub fn serve(
        image: Fixture,
        fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (fault, image): (Arc<Fault>, _) = (Arc::new(fault), Arc::new(image));
        let shared = (Arc::clone(&log), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.1.load(Ordering::Relaxed) {
                    break;
                }
                let (log, fault, image) = (
                    Arc::clone(&shared.0),
                    Arc::clone(&fault),
                    Arc::clone(&image),
                );
                // A client that goes away is part of the tests.
                std::thread::spawn(move || drop(answer(stream, &log, &*fault, &image)));
            }
        });
        Self { host, log, stop }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn blob_requests(&self, bytes: &[u8]) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| request.is_blob(bytes))
            .collect()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

fn answer(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    fault: &Fault,
    image: &Fixture,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    // The record type of a TLS handshake (RFC 8446, 5.1), which servers of plain HTTP answer like this.
    if reader.fill_buf()?.first() == Some(&22) {
        return write_reply(stream, &Reply::new(400, ""), false);
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.trim().split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let request = Request {
        method,
        path,
        headers,
    };
    if let Some(length) = request
        .header("content-length")
        .and_then(|text| text.parse().ok())
    {
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
    }
    let before = {
        let mut log = log.lock().unwrap();
        let before = log
            .iter()
            .filter(|old| old.path == request.path && old.method == request.method)
            .count();
        log.push(request.clone());
        before
    };
    let reply = fault(&request, before).unwrap_or_else(|| honest(&request, image));
    write_reply(stream, &reply, request.method == "HEAD")
}

/// What a good registry answers.
pub fn honest(request: &Request, image: &Fixture) -> Reply {
    let last = request.path.rsplit('/').next().unwrap_or_default();
    if request.is_manifest() {
        let bytes = if last.starts_with("sha256:") {
            image.blob(last)
        } else {
            Some(&image.manifest[..])
        };
        return match bytes {
            Some(bytes) => Reply::new(200, bytes)
                .header("content-type", OCI_MANIFEST)
                .header("docker-content-digest", &digest(bytes).to_string()),
            None => Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            ),
        };
    }
    let Some(bytes) = image.blob(last) else {
        return Reply::new(404, "");
    };
    let range = request
        .header("range")
        .and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match range {
        Some(from) if from < bytes.len() => Reply::new(206, &bytes[from..]).header(
            "content-range",
            &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, bytes),
    }
}

fn write_reply(mut stream: TcpStream, reply: &Reply, head: bool) -> std::io::Result<()> {
    let length = reply.claimed_length.unwrap_or(reply.body.len());
    let mut text = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {length}\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    if !head {
        let end = reply
            .cut_after
            .unwrap_or(reply.body.len())
            .min(reply.body.len());
        stream.write_all(&reply.body[..end])?;
    }
    stream.flush()
}

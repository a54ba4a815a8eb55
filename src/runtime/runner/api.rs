//! The Lambda Runtime API (version 2018-06-01) on a port of the sandbox's own loopback: connections, and which of its calls
//! a request is. What a call means is the service's to say.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::http::{self, Method, Progress, Refused, Request};

const CONNECTIONS_MAX: usize = 16;
const READ_BYTES: usize = 64 * 1024;
/// A client that does not take its answer for so long has stopped reading.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of requests sent before the one before them is answered.
const AHEAD_BYTES_MAX: usize = 1024 * 1024;
const PREFIX: &str = "/2018-06-01/runtime/";

/// One of the API's calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    Next,
    Response {
        id: String,
        body: Vec<u8>,
    },
    Error {
        id: String,
        error_type: Option<String>,
        body: Vec<u8>,
    },
    InitError {
        error_type: Option<String>,
        body: Vec<u8>,
    },
    /// A response or an error larger than is read. Its connection is answered and closed already.
    TooLarge {
        id: String,
    },
    Ping,
    /// No call of ours: the status to answer with.
    Unknown(&'static str),
}

impl Call {
    pub(super) fn of(request: Request) -> Self {
        let Request { method, path, error_type, body } = request;
        let path = path.split('?').next().unwrap_or_default();
        if path == "/2018-06-01/ping" {
            return Call::Ping;
        }
        let Some(rest) = path.strip_prefix(PREFIX) else { return Call::Unknown("404 Not Found") };
        let parts: Vec<&str> = rest.split('/').collect();
        match (method, parts.as_slice()) {
            (Method::Get, ["invocation", "next"]) => Call::Next,
            (Method::Post, ["invocation", id, "response"]) => Call::Response { id: (*id).to_owned(), body },
            (Method::Post, ["invocation", id, "error"]) => Call::Error { id: (*id).to_owned(), error_type, body },
            (Method::Post, ["init", "error"]) => Call::InitError { error_type, body },
            (_, ["invocation", "next"] | ["invocation", _, "response" | "error"] | ["init", "error"]) => {
                Call::Unknown("405 Method Not Allowed")
            }
            _ => Call::Unknown("404 Not Found"),
        }
    }
}

fn too_large() -> Vec<u8> {
    let message = "the request is larger than a result can be";
    http::error_response("413 Content Too Large", "RequestEntityTooLarge", message)
}

/// The invocation that a request for this path answers.
fn invocation_of(path: &str) -> Option<String> {
    match path.strip_prefix(PREFIX)?.split('/').collect::<Vec<_>>().as_slice() {
        ["invocation", id, "response" | "error"] => Some((*id).to_owned()),
        _ => None,
    }
}

/// Tells connections apart for their life; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(u64);

struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    buffer: Vec<u8>,
    continued: bool,
    /// Asked for the next invocation and has no answer yet.
    waiting: bool,
}

pub(super) struct Api {
    listener: TcpListener,
    address: SocketAddr,
    connections: Vec<Connection>,
    next_id: u64,
    /// What is read from any of them goes here first.
    chunk: Box<[u8]>,
}

impl Api {
    pub fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, connections: Vec::new(), next_id: 0, chunk: vec![0; READ_BYTES].into() })
    }

    /// What `AWS_LAMBDA_RUNTIME_API` is set to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, BorrowedFd<'_>)> {
        self.connections.iter().map(|connection| (connection.id, connection.stream.as_fd()))
    }

    /// Call when the listener is readable. One connection too many is closed at once.
    pub fn accept(&mut self) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        if self.connections.len() >= CONNECTIONS_MAX {
            return Ok(());
        }
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.connections.push(Connection { id, stream, buffer: Vec::new(), continued: false, waiting: false });
        Ok(())
    }

    /// Call when the connection is readable; afterwards take calls until there are none. A connection that ended is forgotten.
    pub fn fill(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else { return };
        let read = connection.stream.read(&mut self.chunk).unwrap_or(0);
        connection.buffer.extend_from_slice(&self.chunk[..read]);
        // While it waits for an invocation it has nothing to say: what comes is kept for later, but not without end.
        let speaks_on = connection.waiting && connection.buffer.len() > AHEAD_BYTES_MAX;
        if read == 0 || speaks_on {
            self.close(id);
        }
    }

    /// The next call on this connection, if a whole one has come and the last was answered.
    pub fn take(&mut self, id: ConnectionId) -> Option<Call> {
        let connection = self.find(id).filter(|connection| !connection.waiting)?;
        let refusal = match http::parse(&connection.buffer) {
            Ok(Progress::Complete(request, bytes)) => {
                connection.buffer.drain(..bytes);
                connection.continued = false;
                return Some(Call::of(request));
            }
            Ok(Progress::Partial { expects_continue }) => {
                if expects_continue && !connection.continued {
                    connection.continued = true;
                    self.answer(id, b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                return None;
            }
            Err(Refused::Malformed) => {
                http::error_response("400 Bad Request", "InvalidRequest", "the request is no HTTP")
            }
            Err(Refused::TooLarge) => too_large(),
            Err(Refused::BodyTooLarge { path }) => {
                self.answer(id, &too_large());
                self.close(id);
                return invocation_of(&path).map(|id| Call::TooLarge { id });
            }
        };
        self.answer(id, &refusal);
        self.close(id);
        None
    }

    /// Writes a response; a connection that doesn't take it is closed.
    pub fn answer(&mut self, id: ConnectionId, response: &[u8]) {
        let Some(connection) = self.find(id) else { return };
        connection.waiting = false;
        if connection.stream.write_all(response).is_err() {
            self.close(id);
        }
    }

    /// The connection waits for an invocation until it is answered.
    pub fn hold(&mut self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.waiting = true;
        }
    }

    /// A connection that waits for an invocation.
    pub fn waiting(&self) -> Option<ConnectionId> {
        self.connections.iter().find(|connection| connection.waiting).map(|connection| connection.id)
    }

    /// Forgets every connection: the program that made them has ended.
    pub fn close_all(&mut self) {
        self.connections.clear();
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn close(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_method_and_path() {
        let call = |method, path: &str| {
            Call::of(Request { method, path: path.to_owned(), error_type: None, body: b"1".to_vec() })
        };
        assert_eq!(call(Method::Get, "/2018-06-01/runtime/invocation/next"), Call::Next);
        let response = call(Method::Post, "/2018-06-01/runtime/invocation/a-b/response");
        assert_eq!(response, Call::Response { id: "a-b".to_owned(), body: b"1".to_vec() });
        assert!(matches!(call(Method::Post, "/2018-06-01/runtime/init/error"), Call::InitError { .. }));
        assert_eq!(call(Method::Get, "/2018-06-01/runtime/init/error"), Call::Unknown("405 Method Not Allowed"));
        assert_eq!(call(Method::Get, "/2020-01-01/extension/register"), Call::Unknown("404 Not Found"));
    }
}

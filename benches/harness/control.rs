//! One plain blocking connection for everything that is not measured in bulk: deploy, single calls, status.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::{self, Answer, Verdict};

const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// From an accepted job to its end.
const DONE_LIMIT: Duration = Duration::from_secs(60);

pub struct Control {
    stream: TcpStream,
    key: String,
    buffer: Vec<u8>,
}

impl Control {
    pub fn connect(address: SocketAddr, key: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, key: key.to_owned(), buffer: Vec::new() })
    }

    /// Status and JSON body.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<(u16, Value)> {
        let bytes = request(&self.key, method, path, headers, body);
        let (status, body) = self.exchange(&bytes)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    pub fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let answer = self.answer(request)?;
        let status = std::str::from_utf8(&self.buffer[9..12]).ok().and_then(|text| text.parse().ok());
        Ok((status.unwrap_or(0), self.buffer[answer.body_from..answer.end].to_vec()))
    }

    /// What became of a call, without a copy of its answer.
    pub fn verdict(&mut self, request: &[u8]) -> io::Result<Verdict> {
        Ok(self.answer(request)?.verdict)
    }

    fn answer(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
            if let Some(answer) = answer::read(&self.buffer) {
                return Ok(answer);
            }
        }
    }

    /// Polls without a pause until the invocation has ended; its status and how its sandbox was come by.
    pub fn wait_final(&mut self, id: &str) -> io::Result<(String, String)> {
        let since = Instant::now();
        loop {
            let (_, record) = self.send("GET", &format!("/status/{id}"), "", "")?;
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let status = text("status");
            if !matches!(status.as_str(), "QUEUED" | "RUNNING") || since.elapsed() > DONE_LIMIT {
                return Ok((status, text("startType")));
            }
        }
    }

    /// How many of the accepted jobs came to SUCCESS.
    pub fn all_ended(&mut self, ids: &[String]) -> io::Result<u64> {
        let mut ended = 0;
        for id in ids {
            ended += u64::from(self.wait_final(id)?.0 == "SUCCESS");
        }
        Ok(ended)
    }

    pub fn deploy(&mut self, definition: &Value) -> io::Result<()> {
        let (status, answer) = self.send("POST", "/functions", "", &definition.to_string())?;
        if status == 201 { Ok(()) } else { Err(io::Error::other(format!("deploy answered {status}: {answer}"))) }
    }
}

/// A key of another owner than the admin's, who may deploy and invoke.
pub fn owner_key(admin: &mut Control, owner: &str) -> io::Result<String> {
    let asked = serde_json::json!({ "name": owner, "owner": owner, "scopes": ["deploy", "invoke", "read"] });
    let (status, answer) = admin.send("POST", "/keys", "", &asked.to_string())?;
    let secret = answer["key"].as_str().filter(|_| status == 201);
    secret.map(str::to_owned).ok_or_else(|| io::Error::other(format!("a key was answered {status}: {answer}")))
}

/// The bytes of a request; `headers` are whole lines, each with its line end.
pub fn request(key: &str, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: faasd\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// A call with an object of 27 bytes.
pub fn run_request(key: &str, function: &str, headers: &str) -> Vec<u8> {
    run_with(key, function, headers, r#"{"n":1,"text":"hello you."}"#)
}

/// A call with `input`, which is JSON.
pub fn run_with(key: &str, function: &str, headers: &str, input: &str) -> Vec<u8> {
    request(key, "POST", "/run", headers, &format!(r#"{{"name":"{function}","inputData":{input}}}"#))
}

//! DynamoDB in memory, fast, over its real protocol (JSON 1.0): for tests of throughput and chaos, held to the suite that runs over
//! the functional emulator too. It can be told to fail.
//!
//! What it does not do it refuses by name: parameters of the time before expressions, streams, PartiQL, backups, capacity figures.
//! All reads are consistent but those of global secondary indexes, which can be told to be behind.
//!
//! Another process tells it by HTTP: `PUT /faults` with [`Faults`] as JSON, `PUT /sweep` with the time in seconds since 1970 to
//! delete what has expired, `PUT /reset` to drop all tables, `GET /requests` for how many were answered, by operation.

mod batches;
mod condition;
#[cfg(test)]
mod expressions;
mod grammar;
mod items;
mod key;
mod number;
mod path;
mod query;
mod refusal;
mod requests;
mod table;
mod tables;
mod tokens;
mod tree;
mod update;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde::de::DeserializeOwned;

use super::faults::{Fault, Faults, Generator};
use super::listener::{Listener, Site};
use refusal::{Answer, Refusal};
use table::Table;

/// A running server; ended when dropped.
pub struct FastDynamo {
    server: Arc<Server>,
    listener: Listener,
}

#[derive(Default)]
struct Server {
    state: Mutex<State>,
    generator: Mutex<Generator>,
    /// By operation, for tests that count requests.
    requests: Mutex<BTreeMap<String, u64>>,
}

#[derive(Default)]
pub(super) struct State {
    tables: BTreeMap<String, Table>,
    /// Of the transactions done: when, and a fingerprint of what.
    tokens: HashMap<String, (Instant, u64)>,
    next_id: u64,
}

impl FastDynamo {
    pub fn start() -> Self {
        let server = Arc::new(Server::default());
        Self { listener: Listener::start("dynamodb", server.clone()), server }
    }

    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }

    pub fn faults(&self, faults: Faults) {
        self.server.set_faults(faults);
    }

    /// Deletes what has expired by then, seconds since 1970; how many.
    pub fn sweep(&self, now_s: f64) -> usize {
        self.server.sweep(now_s)
    }

    /// Requests answered so far, by operation.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.server.requests.lock().unwrap().clone()
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| {
        let message = error.to_string();
        match message.strip_prefix(value::INVALID) {
            Some(message) => Refusal::invalid_value(message),
            None => Refusal::new("SerializationException", message),
        }
    })
}

impl Server {
    fn set_faults(&self, faults: Faults) {
        let lag = Duration::from_millis(faults.index_lag_ms);
        for table in self.state.lock().unwrap().tables.values_mut() {
            table.index_lag = lag;
        }
        *self.generator.lock().unwrap() = Generator::new(faults);
    }

    fn sweep(&self, now_s: f64) -> usize {
        self.state.lock().unwrap().tables.values_mut().map(|table| table.sweep(now_s)).sum()
    }

    fn act(&self, operation: &str, body: &[u8]) -> Answer<Vec<u8>> {
        // Decoded before the state is locked, which others wait for.
        let json = |answer: Answer<serde_json::Value>| answer.map(|json| json.to_string().into_bytes());
        let state = || self.state.lock().unwrap();
        match operation {
            "GetItem" => {
                let get = decode(body)?;
                state().get(&get)
            }
            "PutItem" => self.write::<requests::PutItem>(body),
            "UpdateItem" => self.write::<requests::UpdateItem>(body),
            "DeleteItem" => self.write::<requests::DeleteItem>(body),
            "Query" => {
                let read = decode(body)?;
                state().query(&read)
            }
            "Scan" => {
                let read = decode(body)?;
                state().scan(&read)
            }
            "BatchWriteItem" => {
                let batch = decode(body)?;
                state().batch_write(&batch, &mut self.generator.lock().unwrap())
            }
            "BatchGetItem" => {
                let batch = decode(body)?;
                state().batch_get(&batch, &mut self.generator.lock().unwrap())
            }
            "TransactWriteItems" => {
                let transaction = decode(body)?;
                state().transact_write(&transaction, &mut self.generator.lock().unwrap())
            }
            "TransactGetItems" => {
                let transaction = decode(body)?;
                state().transact_get(&transaction)
            }
            "CreateTable" => {
                let faults = self.generator.lock().unwrap().faults().clone();
                let created = state().create_table(&decode(body)?, Duration::from_millis(faults.creating_ms));
                for table in state().tables.values_mut() {
                    table.index_lag = Duration::from_millis(faults.index_lag_ms);
                }
                json(created)
            }
            "DescribeTable" => json(state().describe_table(&decode(body)?)),
            "DeleteTable" => json(state().delete_table(&decode(body)?)),
            "ListTables" => json(state().list_tables(&decode(body)?)),
            "UpdateTimeToLive" => json(state().update_expiry(&decode(body)?)),
            "DescribeTimeToLive" => json(state().describe_expiry(&decode(body)?)),
            other => Err(Refusal::new("UnknownOperationException", format!("this server does no {other}"))),
        }
    }

    fn write<T: DeserializeOwned + Into<requests::Write>>(&self, body: &[u8]) -> Answer<Vec<u8>> {
        let write = decode::<T>(body)?.into();
        self.state.lock().unwrap().write(&write)
    }

    fn count(&self, operation: &str) {
        let mut counts = self.requests.lock().unwrap();
        match counts.get_mut(operation) {
            Some(count) => *count += 1,
            None => drop(counts.insert(operation.to_owned(), 1)),
        }
    }

    /// What a test in another process says.
    fn told(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let body = match (method.as_str(), path) {
            ("PUT", "/faults") => match serde_json::from_slice(body) {
                Ok(faults) => {
                    self.set_faults(faults);
                    String::new()
                }
                Err(error) => return respond(400, error.to_string().into()),
            },
            ("PUT", "/sweep") => match std::str::from_utf8(body).ok().and_then(|text| text.trim().parse().ok()) {
                Some(now_s) => self.sweep(now_s).to_string(),
                None => return respond(400, "the time, in seconds since 1970".into()),
            },
            ("PUT", "/reset") => {
                *self.state.lock().unwrap() = State::default();
                String::new()
            }
            ("GET", "/requests") => serde_json::to_string(&*self.requests.lock().unwrap()).unwrap_or_default(),
            _ => return respond(404, Vec::new()),
        };
        respond(200, body.into_bytes())
    }
}

impl Site for Server {
    const BODY_MAX: usize = 32 << 20;

    async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok());
        let Some(operation) = target.and_then(|target| target.strip_prefix("DynamoDB_20120810.")) else {
            return self.told(request.method(), request.uri().path(), request.body());
        };
        let fault = self.generator.lock().unwrap().draw();
        let act = || self.act(operation, request.body());
        let answer = match fault {
            None => act(),
            Some(Fault::Throttle) => Err(Refusal::throttled()),
            Some(Fault::Fail { done }) => {
                if done {
                    let _ = act();
                }
                Err(Refusal::internal())
            }
            Some(Fault::Stall { done: true, time }) => {
                let answer = act();
                tokio::time::sleep(time).await;
                answer
            }
            Some(Fault::Stall { done: false, time }) => {
                tokio::time::sleep(time).await;
                act()
            }
        };
        self.count(operation);
        match answer {
            Ok(body) => respond(200, body),
            Err(refusal) => respond(refusal.status, refusal.body().to_string().into_bytes()),
        }
    }
}

fn respond(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "00000000-0000-0000-0000-000000000000")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

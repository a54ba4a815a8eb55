//! What the program's calls of the Runtime API do.

use std::time::Instant;

use super::super::api::{self, ConnectionId};
use super::super::invocation::{invocation_response, reported, wrong_id};
use super::super::{http, printed};
use super::{Life, Phase, Service, Stop};
use crate::runtime::wire::{OUTPUT_TOO_LARGE, RuntimeError};

impl Service {
    pub(super) fn connection_is_readable(&mut self, id: ConnectionId) -> Result<(), Stop> {
        if let Some(api) = &mut self.api {
            api.fill(id);
        }
        while let Some(call) = self.api.as_mut().and_then(|api| api.take(id)) {
            if let Some(response) = self.answer_to(id, call)?
                && let Some(api) = &mut self.api
            {
                api.answer(id, &response);
            }
        }
        Ok(())
    }

    /// Does what the program asks; `None` where the answer comes later.
    fn answer_to(&mut self, connection: ConnectionId, call: api::Call) -> Result<Option<Vec<u8>>, Stop> {
        let accepted = || Some(http::json_response("202 Accepted", r#"{"status":"OK"}"#));
        match call {
            api::Call::Next => return self.asked_for_next(connection),
            api::Call::Response { id, body } => {
                if !self.is_running(&id) {
                    return Ok(Some(wrong_id()));
                }
                let body = if printed::is_json(&body) { body } else { printed::to_json(&body) };
                self.drain()?;
                self.end(Ok(body), None)?;
            }
            api::Call::Error { id, error_type, body } => {
                if !self.is_running(&id) {
                    return Ok(Some(wrong_id()));
                }
                self.drain()?;
                self.end(Err(reported(error_type, &body)), None)?;
            }
            api::Call::InitError { error_type, body } => match self.phase {
                Phase::Starting => {
                    self.phase = Phase::Idle;
                    self.daemon.specialised(Some(reported(error_type, &body)))?;
                }
                Phase::Running(_) => self.end(Err(reported(error_type, &body)), None)?,
                _ => {}
            },
            api::Call::TooLarge { id } => {
                if self.is_running(&id) {
                    let error_message =
                        format!("the result is more than the {} bytes that are read", http::BODY_BYTES_MAX);
                    let error_type = OUTPUT_TOO_LARGE.to_owned();
                    self.drain()?;
                    self.end(Err(RuntimeError { error_type, error_message, stack_trace: Vec::new() }), None)?;
                }
                return Ok(None);
            }
            api::Call::Ping => return Ok(Some(http::json_response("200 OK", "\"pong\""))),
            api::Call::Unknown(status) => {
                let message = "the Runtime API has no such call";
                return Ok(Some(http::error_response(status, "InvalidRequest", message)));
            }
        }
        Ok(accepted())
    }

    fn is_running(&self, id: &str) -> bool {
        matches!(&self.phase, Phase::Running(call) if call.id == id && call.handed_over)
    }

    fn asked_for_next(&mut self, connection: ConnectionId) -> Result<Option<Vec<u8>>, Stop> {
        match &self.phase {
            Phase::Running(call) if call.handed_over => {
                let message = "the last invocation has neither response nor error yet";
                return Ok(Some(http::error_response("403 Forbidden", "InvalidStateTransition", message)));
            }
            Phase::Starting => {
                self.phase = Phase::Idle;
                self.daemon.specialised(None)?;
            }
            _ => {}
        }
        if self.life == Life::PerCall {
            self.life = Life::Server; // it turns out to be one
        }
        if let Some(api) = &mut self.api {
            api.hold(connection);
        }
        self.hand_over()?;
        Ok(None)
    }

    /// Gives the call at hand to the program, if there is one and the program waits for it.
    pub(super) fn hand_over(&mut self) -> Result<(), Stop> {
        let (Some(api), Some(specialise), Phase::Running(call)) = (&mut self.api, &self.specialise, &mut self.phase)
        else {
            return Ok(());
        };
        let Some(connection) = api.waiting().filter(|_| !call.handed_over) else { return Ok(()) };
        call.handed_over = true;
        call.started = Instant::now();
        let payload = std::mem::take(&mut call.payload);
        let response = invocation_response(specialise, call, &payload);
        api.answer(connection, &response);
        Ok(())
    }
}

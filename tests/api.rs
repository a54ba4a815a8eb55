//! What the HTTP API promises, one file for each thing a user comes with. A real daemon answers, with real sandboxes.

mod access;
mod access_keys;
mod addresses;
mod advice;
mod audit;
mod auth;
mod bad_archives;
mod bad_requests;
mod connections;
mod headers;
mod invocations;
mod json;
mod jwt;
mod lifecycle;
mod logs;
mod metrics;
mod secrets;
mod slow;
mod smuggling;
mod system;
mod tls;
mod upload;

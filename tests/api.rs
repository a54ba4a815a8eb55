//! What the HTTP API promises, one file for each thing a user comes with. A real daemon answers, with real sandboxes.

mod access;
mod advice;
mod auth;
mod bad_archives;
mod bad_requests;
mod connections;
mod invocations;
mod lifecycle;
mod logs;
mod system;
mod upload;

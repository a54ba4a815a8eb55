//! What a node of a fleet does beside running functions: calls through the queue, cordon and drain.

mod life;
mod queued;

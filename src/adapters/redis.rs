//! The fleet's Redis: news, claims, heartbeats, rate limits and locks.

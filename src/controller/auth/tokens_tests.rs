//! Tokens made by hand.

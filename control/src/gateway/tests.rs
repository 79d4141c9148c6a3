//! The gateway over real sockets: a node and a client made by hand, the operations called in-process.

mod channels;
mod encryption;
mod peer;
mod retention;
mod sealed_transcripts;
mod sessions;
mod transcripts;

//! Operations of transcripts, in-process.

//! Verification of transcripts: every alteration is found and named, by our verifier and by the one in Python that was
//! written from docs/transcript-format.md alone; and what an auditor does with a file.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod alterations;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod recording;

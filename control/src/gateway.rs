//! The channels: a hub of control channels, a relay between the two data channels of a session.

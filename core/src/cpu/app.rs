//! Which hypapp is built in.

/// The hypapp.
#[cfg(feature = "hypapp-hello")]
pub type App = umbra_hypapp::hello::Hello;
/// No hypapp.
#[cfg(not(feature = "hypapp-hello"))]
pub type App = umbra_hypapp::NoHypapp;

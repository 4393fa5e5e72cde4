//! The VMCSs that L0 makes, and the one that is current.

pub mod current;
pub mod host_state;
pub mod lent;
pub mod shadow;
pub mod vmcs01;
pub mod vmcs02;

//! What keeps an instruction of L1 from being carried out.

/// An exception for L0 to inject into L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The vector.
    pub vector: u8,
    /// The error code, for the vectors that have one.
    pub error_code: Option<u32>,
    /// The linear address that goes to CR2, for a page fault.
    pub cr2: Option<u64>,
}

impl Fault {
    /// #UD.
    pub const UD: Self = Self {
        vector: 6,
        error_code: None,
        cr2: None,
    };
    /// #GP(0).
    pub const GP: Self = Self {
        vector: 13,
        error_code: Some(0),
        cr2: None,
    };
    /// #SS(0).
    pub const SS: Self = Self {
        vector: 12,
        error_code: Some(0),
        cr2: None,
    };

    /// #PF.
    pub const fn page(linear: u64, error_code: u32) -> Self {
        Self {
            vector: 14,
            error_code: Some(error_code),
            cr2: Some(linear),
        }
    }
}

/// Why L0 does not carry out an instruction of L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It raises an exception.
    Fault(Fault),
    /// Nothing has been done: L1 is to execute it once more. Another CPU kept
    /// changing the paging entries of its operand while L0 set their flags.
    Again,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

//! The registers that the stub saves and loads.

/// The registers that no VMCS holds, of L1 or of L2, whichever ran last.
#[repr(C, align(16))]
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// By the numbers of instruction encodings: RAX, RCX, RDX, RBX, (RSP), RBP,
    /// RSI, RDI, R8 to R15. Index 4 is not used: RSP is in the VMCS.
    pub gprs: [u64; 16],
    /// XMM0 to XMM7: those that L0 uses itself.
    pub xmm: [[u64; 2]; 8],
}

/// Indices into [`Registers::gprs`].
pub mod gpr {
    #![allow(missing_docs)]
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

impl Registers {
    /// EDX:EAX.
    pub fn edx_eax(&self) -> u64 {
        self.gprs[gpr::RDX] << 32 | self.gprs[gpr::RAX] & 0xffff_ffff
    }

    /// Sets EAX, EBX, ECX and EDX, clearing the upper halves.
    pub fn set_words(&mut self, [eax, ebx, ecx, edx]: [u32; 4]) {
        self.gprs[gpr::RAX] = u64::from(eax);
        self.gprs[gpr::RBX] = u64::from(ebx);
        self.gprs[gpr::RCX] = u64::from(ecx);
        self.gprs[gpr::RDX] = u64::from(edx);
    }

    /// Sets EAX and EDX, clearing the upper halves of RAX and RDX.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.gprs[gpr::RAX] = value & 0xffff_ffff;
        self.gprs[gpr::RDX] = value >> 32;
    }
}

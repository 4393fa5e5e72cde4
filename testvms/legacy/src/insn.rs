//! The VMX instructions as bytes.

use umbra_vmcs::field;

/// What the memory operand holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The address of a VMCS that is not current.
    Pointer,
    /// A value that is no pointer.
    Value,
    /// A descriptor of INVEPT or INVVPID: VPID 1.
    Descriptor,
}

/// An instruction with a memory operand; its second operand, if it has one, is ECX.
pub struct Insn {
    /// The name in transcripts.
    pub name: &'static str,
    opcode: &'static [u8],
    /// The register field of ModRM.
    reg: u8,
    /// What ECX holds.
    pub ecx: u32,
    /// What the memory operand has to hold.
    pub holds: Holds,
    /// Bytes of the operand outside 64-bit mode.
    pub bytes: u32,
    /// Whether the memory operand is written.
    pub writes: bool,
}

const RIP_FIELD: u32 = field::GUEST_RIP.encoding();

const fn insn(
    name: &'static str,
    opcode: &'static [u8],
    reg: u8,
    ecx: u32,
    (holds, bytes, writes): (Holds, u32, bool),
) -> Insn {
    Insn {
        name,
        opcode,
        reg,
        ecx,
        holds,
        bytes,
        writes,
    }
}

/// The instructions with a memory operand.
pub const MEMORY: [Insn; 8] = [
    insn(
        "vmclear",
        &[0x66, 0x0f, 0xc7],
        6,
        0,
        (Holds::Pointer, 8, false),
    ),
    insn("vmptrld", &[0x0f, 0xc7], 6, 0, (Holds::Pointer, 8, false)),
    insn("vmptrst", &[0x0f, 0xc7], 7, 0, (Holds::Value, 8, true)),
    insn(
        "vmxon",
        &[0xf3, 0x0f, 0xc7],
        6,
        0,
        (Holds::Pointer, 8, false),
    ),
    insn(
        "vmread",
        &[0x0f, 0x78],
        1,
        RIP_FIELD,
        (Holds::Value, 4, true),
    ),
    insn(
        "vmwrite",
        &[0x0f, 0x79],
        1,
        RIP_FIELD,
        (Holds::Value, 4, false),
    ),
    insn(
        "invept",
        &[0x66, 0x0f, 0x38, 0x80],
        1,
        2,
        (Holds::Descriptor, 16, false),
    ),
    insn(
        "invvpid",
        &[0x66, 0x0f, 0x38, 0x81],
        1,
        2,
        (Holds::Descriptor, 16, false),
    ),
];

/// VMPTRST: 8 bytes written.
pub const STORE_POINTER: &Insn = &MEMORY[2];
/// VMREAD: 4 bytes written.
pub const VMREAD: &Insn = &MEMORY[4];
/// VMWRITE: 4 bytes read.
pub const VMWRITE: &Insn = &MEMORY[5];

/// The instructions without one. The register forms of VMREAD and VMWRITE have ECX and EDX.
pub const PLAIN: [(&str, &[u8]); 8] = [
    ("vmread reg", &[0x0f, 0x78, 0xca]),
    ("vmwrite reg", &[0x0f, 0x79, 0xca]),
    ("vmlaunch", &[0x0f, 0x01, 0xc2]),
    ("vmresume", &[0x0f, 0x01, 0xc3]),
    ("vmxoff", &[0x0f, 0x01, 0xc4]),
    ("vmcall", &[0x0f, 0x01, 0xc1]),
    ("vmfunc", &[0x0f, 0x01, 0xd4]),
    ("getsec", &[0x0f, 0x37]),
];

/// ModRM, its register field clear, and what follows: `[eax]`; with 16-bit addresses `[bx+si]`.
pub const AT_EAX: &[u8] = &[0x00];
/// `[bx]`.
pub const AT_BX: &[u8] = &[0x07];
/// `[ebp]` with a displacement of 0: the stack segment.
pub const AT_EBP: &[u8] = &[0x45, 0];

/// An encoded instruction.
#[derive(Clone, Copy)]
pub struct Bytes {
    bytes: [u8; 32],
    length: usize,
}

impl Bytes {
    /// Pieces, one after another.
    pub fn of(pieces: &[&[u8]]) -> Self {
        let mut made = Self {
            bytes: [0; 32],
            length: 0,
        };
        for byte in pieces.iter().flat_map(|piece| piece.iter()) {
            made.bytes[made.length] = *byte;
            made.length += 1;
        }
        made
    }
}

impl core::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Insn {
    /// The instruction with prefixes in front and ModRM, SIB and displacement behind.
    pub fn encode(&self, prefixes: &[u8], tail: &[u8]) -> Bytes {
        let modrm = tail[0] | self.reg << 3;
        Bytes::of(&[prefixes, self.opcode, &[modrm], &tail[1..]])
    }
}

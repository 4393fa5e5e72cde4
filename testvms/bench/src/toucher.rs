//! L2's code: touches some pages, exits by VMCALL, and starts over.

/// How L2 touches a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MOV from it.
    Read,
    /// MOV to it.
    Write,
}

/// The code.
pub struct Toucher {
    bytes: [u8; 32],
    length: usize,
}

impl Toucher {
    /// Touches `count` addresses from `from` on, `stride` bytes apart, the same ones after each exit.
    pub fn again(count: u64, stride: u64, kind: Kind, from: u64) -> Self {
        let mut code = Self::empty();
        code.put(&[0xbf]);
        code.put(&(from as u32).to_le_bytes());
        code.rest(count, stride, kind);
        code
    }

    /// Touches `count` addresses from RDI on, `stride` bytes apart, and goes on there after each exit.
    pub fn onward(count: u64, stride: u64, kind: Kind) -> Self {
        let mut code = Self::empty();
        code.rest(count, stride, kind);
        code
    }

    /// The code's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn empty() -> Self {
        Self {
            bytes: [0; 32],
            length: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn rest(&mut self, count: u64, stride: u64, kind: Kind) {
        let opcode = if kind == Kind::Write { 0x89 } else { 0x8b };
        // mov ebx, count
        self.put(&[0xbb]);
        self.put(&(count as u32).to_le_bytes());
        // mov eax, [rdi] or mov [rdi], eax; add rdi, stride; dec ebx; jnz to the first of these
        self.put(&[opcode, 0x07, 0x48, 0x81, 0xc7]);
        self.put(&(stride as u32).to_le_bytes());
        self.put(&[0xff, 0xcb, 0x75, 0xf3]);
        // vmcall; jmp to the start
        self.put(&[0x0f, 0x01, 0xc1]);
        let back = 0u8.wrapping_sub(self.length as u8 + 2);
        self.put(&[0xeb, back]);
    }
}

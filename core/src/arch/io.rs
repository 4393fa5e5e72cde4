//! Port I/O. The numbers of ports are in decimal or hex as their manuals give
//! them.

/// Reads a byte.
pub fn in8(port: u16) -> u8 {
    // SAFETY: L0 owns the machine; a port read cannot touch its memory.
    unsafe { x86::io::inb(port) }
}

/// Reads 16 bits.
pub fn in16(port: u16) -> u16 {
    // SAFETY: as `in8`.
    unsafe { x86::io::inw(port) }
}

/// Reads 32 bits.
pub fn in32(port: u16) -> u32 {
    // SAFETY: as `in8`.
    unsafe { x86::io::inl(port) }
}

/// Writes a byte.
pub fn out8(port: u16, value: u8) {
    // SAFETY: either a port of L0's own (COM1) or what L1 asked for: a
    // device's memory accesses are L1's affair.
    unsafe { x86::io::outb(port, value) }
}

/// Writes 16 bits.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as `out8`.
    unsafe { x86::io::outw(port, value) }
}

/// Writes 32 bits.
pub fn out32(port: u16, value: u32) {
    // SAFETY: as `out8`.
    unsafe { x86::io::outl(port, value) }
}

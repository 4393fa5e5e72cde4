//! Instructions that may fault, and what to do then.
//!
//! A row of the `.fixups` section names an instruction and the place to go on
//! at when it raises #GP. The #GP handler (`exception.S`) looks the row up: two linked addresses of 8 bytes.

/// The two labels of a row, as text for `asm!`: the instruction is at `2:`
/// and the landing at `3:`.
#[macro_export]
macro_rules! fixup_row {
    () => {
        ".pushsection .fixups, \"a\"\n.quad 2b, 3b\n.popsection"
    };
}

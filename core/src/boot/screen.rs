//! A refusal on the text screen of a BIOS machine: there may be nobody at COM1.

use crate::mem::pointer;
use core::fmt::{self, Write};
use umbra_guests::BootInfo;
use umbra_guests::bootinfo::{Framebuffer, FramebufferKind};

/// White on red.
const ATTRIBUTE: u16 = 0x4f00;
const SCREEN: Framebuffer = Framebuffer::VGA_TEXT;

/// From now on a refusal is also shown on the screen, where the boot loader left
/// a text screen.
pub fn use_for_refusals(info: &BootInfo<'_>) {
    let is_text = match info.framebuffer() {
        Some(screen) => screen.kind == FramebufferKind::Text && screen.address == SCREEN.address,
        None => info.efi().is_none(),
    };
    if is_text {
        crate::refusal::also_say(show);
    }
}

/// The first lines of the screen.
struct Cells(u64);

impl Write for Cells {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.0 < u64::from(SCREEN.width * SCREEN.height) {
                let cell = pointer(SCREEN.address + 2 * self.0).cast::<u16>();
                // SAFETY: a cell of the text screen, which both the early tables
                // and L0's own map.
                unsafe { cell.write_volatile(ATTRIBUTE | u16::from(byte)) };
                self.0 += 1;
            }
        }
        Ok(())
    }
}

fn show(why: fmt::Arguments<'_>) {
    // Cannot fail: what does not fit is left out.
    let _ = write!(Cells(0), " umbra: cannot start: {why} ");
}

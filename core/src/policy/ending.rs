//! Writes to ports by which L1 ends the run, seen before they take effect.

/// What a write is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// ACPI sleep: PM1 control with SLP_EN (ACPI Specification, "PM1 Control
    /// Registers").
    Sleep,
    /// Bochs's shutdown port: the last letter of its word.
    Word,
    /// The keyboard controller's pulse on the reset line.
    Keyboard,
    /// System control port A's fast reset.
    FastReset,
    /// The chipset's reset control register.
    ResetControl,
    /// ACPI's reset register (ACPI Specification, "Reset Register").
    ResetRegister,
}

/// Port that takes the letters of [`WORD`].
pub const WORD_PORT: u16 = 0x8900;
/// What has to be written there, letter by letter.
const WORD: &[u8] = b"Shutdown";
/// The keyboard controller's command port.
pub const KEYBOARD_PORT: u16 = 0x64;
/// Command: pulse output bit 0, the reset line.
pub const PULSE_RESET: u8 = 0xfe;
/// System control port A: the A20 gate, and a reset when [`FAST_RESET`] is written.
const CONTROL_PORT: u16 = 0x92;
/// Resets the processor when it becomes 1.
const FAST_RESET: u8 = 1 << 0;
/// The reset control register. It lies within the PCI configuration address
/// port and answers to single bytes alone; what is wider goes to that one. So
/// every access to that port exits: thousands while L1 boots, few afterwards.
pub const RESET_PORT: u16 = 0xcf9;
/// RST_CPU: a reset when it becomes 1.
pub const RESET_CPU: u8 = 1 << 2;
/// SLP_EN, in the high byte of PM1 control.
const SLEEP_ENABLE_HIGH: u8 = 1 << 5;

/// Watches L1's port writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    letters: usize,
    /// PM1a and PM1b control; 0 where the machine has none.
    pm1_control: [u16; 2],
    /// ACPI's reset register: its port and what resets the machine.
    reset: Option<(u16, u8)>,
}

impl Watch {
    /// A watch on a machine with these PM1 control ports (0: none) and this reset
    /// register.
    pub const fn new(pm1_control: [u16; 2], reset: Option<(u16, u8)>) -> Self {
        Self {
            letters: 0,
            pm1_control,
            reset,
        }
    }

    /// The ports to watch.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let pm1 = self
            .pm1_control
            .into_iter()
            .filter(|&port| port != 0)
            .flat_map(|port| [port, port.wrapping_add(1)]);
        [WORD_PORT, KEYBOARD_PORT, CONTROL_PORT, RESET_PORT]
            .into_iter()
            .chain(pm1)
            .chain(self.reset.map(|(port, _)| port))
    }

    /// L1 is about to write these bytes, 1, 2 or 4, to `port` in one access.
    pub fn about_to_write(&mut self, port: u16, bytes: &[u8]) -> Option<Ending> {
        if let (RESET_PORT, &[value]) = (port, bytes)
            && value & RESET_CPU != 0
        {
            return Some(Ending::ResetControl);
        }
        (0u16..)
            .zip(bytes)
            .filter_map(|(at, &value)| self.byte(port.wrapping_add(at), value))
            .last()
    }

    fn byte(&mut self, port: u16, value: u8) -> Option<Ending> {
        match port {
            WORD_PORT => {
                if WORD.get(self.letters) == Some(&value) {
                    self.letters += 1;
                } else {
                    self.letters = usize::from(value == WORD[0]);
                }
                if self.letters == WORD.len() {
                    self.letters = 0;
                    return Some(Ending::Word);
                }
                None
            }
            KEYBOARD_PORT if value == PULSE_RESET => Some(Ending::Keyboard),
            CONTROL_PORT if value & FAST_RESET != 0 => Some(Ending::FastReset),
            // It may be the port above, for which a wider access goes elsewhere.
            _ if port != RESET_PORT && self.reset == Some((port, value)) => {
                Some(Ending::ResetRegister)
            }
            _ => {
                let is_high = self
                    .pm1_control
                    .iter()
                    .any(|&p| p != 0 && p.wrapping_add(1) == port);
                (is_high && value & SLEEP_ENABLE_HIGH != 0).then_some(Ending::Sleep)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(watch: &mut Watch, text: &[u8]) -> usize {
        text.iter()
            .filter(|&&b| watch.about_to_write(WORD_PORT, &[b]) == Some(Ending::Word))
            .count()
    }

    #[test]
    fn the_word_ends_the_run_once() {
        let mut watch = Watch::new([0, 0], None);
        assert_eq!(write_all(&mut watch, b"Shutdow"), 0);
        assert_eq!(write_all(&mut watch, b"n"), 1);
        assert_eq!(write_all(&mut watch, b"n"), 0);
        assert_eq!(write_all(&mut watch, b"ShutShutdown"), 1);
        assert_eq!(write_all(&mut watch, b"SShutdown"), 1);
    }

    #[test]
    fn sleep_needs_its_enable_bit() {
        let mut watch = Watch::new([0xb004, 0], None);
        assert_eq!(watch.about_to_write(0xb004, &[0xff]), None);
        assert_eq!(watch.about_to_write(0xb005, &[0x14]), None);
        assert_eq!(watch.about_to_write(0xb005, &[0x34]), Some(Ending::Sleep));
        // No PM1b: port 1 is nothing.
        assert_eq!(watch.about_to_write(1, &[0x34]), None);
        assert!(watch.ports().any(|p| p == 0xb005));
        assert!(!watch.ports().any(|p| p == 0 || p == 1));
    }

    #[test]
    fn resets_are_seen() {
        let mut watch = Watch::new([0, 0], None);
        assert!(watch.ports().any(|p| p == 0xcf9));
        // PCI configuration, the high byte of its address aside.
        assert!(
            !watch
                .ports()
                .any(|p| p != 0xcf9 && (0xcf8..0xd00).contains(&p))
        );
        assert_eq!(watch.about_to_write(KEYBOARD_PORT, &[0xd1]), None);
        assert_eq!(
            watch.about_to_write(KEYBOARD_PORT, &[0xfe]),
            Some(Ending::Keyboard)
        );
    }

    #[test]
    fn the_fast_reset_is_seen_beside_the_a20_gate() {
        let mut watch = Watch::new([0, 0], None);
        assert!(watch.ports().any(|p| p == 0x92));
        assert_eq!(watch.about_to_write(0x92, &[2]), None);
        assert_eq!(watch.about_to_write(0x92, &[3]), Some(Ending::FastReset));
    }

    #[test]
    fn the_reset_register_of_acpi_is_seen() {
        let mut watch = Watch::new([0, 0], Some((0x604, 5)));
        assert!(watch.ports().any(|p| p == 0x604));
        assert_eq!(watch.about_to_write(0x604, &[4]), None);
        assert_eq!(
            watch.about_to_write(0x604, &[5]),
            Some(Ending::ResetRegister)
        );
        // Often it is the chipset's, which a wide access does not reach.
        let mut watch = Watch::new([0, 0], Some((RESET_PORT, 6)));
        assert_eq!(watch.about_to_write(0xcf8, &[0, 6]), None);
        assert_eq!(
            watch.about_to_write(RESET_PORT, &[6]),
            Some(Ending::ResetControl)
        );
    }

    #[test]
    fn only_a_single_byte_reaches_the_reset_control_register() {
        let mut watch = Watch::new([0, 0], None);
        assert_eq!(watch.about_to_write(0xcf9, &[2]), None);
        assert_eq!(
            watch.about_to_write(0xcf9, &[6]),
            Some(Ending::ResetControl)
        );
        // A PCI configuration address with that bit set.
        let address = 0x8000_0400u32.to_le_bytes();
        assert_eq!(watch.about_to_write(0xcf8, &address), None);
        assert_eq!(watch.about_to_write(0xcf8, &[0, 4]), None);
        assert_eq!(watch.about_to_write(0xcf9, &[4, 0]), None);
    }

    #[test]
    fn a_wide_write_is_seen_at_each_port() {
        let mut watch = Watch::new([0xb004, 0], None);
        assert_eq!(
            watch.about_to_write(0xb004, &[0, 0x20]),
            Some(Ending::Sleep)
        );
        assert_eq!(watch.about_to_write(0xb004, &[0x20, 0]), None);
    }
}

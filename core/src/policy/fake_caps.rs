//! A CPU that lacks something, for the tests: what the CPU has is taken away, and
//! whatever uses it all the same is caught.
//!
//! Only an image with the feature `fake-caps` can be told to do so.

use umbra_arch::msr;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::field::{self, Field};

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A bit of a capability MSR; of a control's, that it may be 1.
    Capability {
        /// The MSR; the one of a pair with the lower number.
        number: u32,
        /// The bit; of a control word, that of the word.
        bit: u32,
    },
    /// A field of the VMCS.
    Field(Field),
}

/// The plain MSR that a TRUE one says more about.
const fn plain(number: u32) -> u32 {
    match number {
        msr::IA32_VMX_TRUE_PINBASED_CTLS => msr::IA32_VMX_PINBASED_CTLS,
        msr::IA32_VMX_TRUE_PROCBASED_CTLS => msr::IA32_VMX_PROCBASED_CTLS,
        msr::IA32_VMX_TRUE_EXIT_CTLS => msr::IA32_VMX_EXIT_CTLS,
        msr::IA32_VMX_TRUE_ENTRY_CTLS => msr::IA32_VMX_ENTRY_CTLS,
        other => other,
    }
}

/// Whether an MSR has allowed 0-settings below and allowed 1-settings above.
const fn is_of_control_word(number: u32) -> bool {
    matches!(
        number,
        msr::IA32_VMX_PINBASED_CTLS
            | msr::IA32_VMX_PROCBASED_CTLS
            | msr::IA32_VMX_EXIT_CTLS
            | msr::IA32_VMX_ENTRY_CTLS
            | msr::IA32_VMX_PROCBASED_CTLS2
    )
}

impl Lack {
    /// From `MSR.BIT`, the MSR in hexadecimal digits and the bit in decimal ones, or
    /// `field.ENCODING`, in hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (what, which) = core::str::from_utf8(text).ok()?.split_once('.')?;
        if what == "field" {
            let encoding = u32::from_str_radix(which, 16).ok()?;
            let found = field::ALL.into_iter().find(|f| f.encoding() == encoding)?;
            return Some(Self::Field(found));
        }
        let number = u32::from_str_radix(what, 16).ok()?;
        let bit = which.parse().ok().filter(|&bit| bit < 64)?;
        (msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2)
            .contains(&number)
            .then_some(Self::Capability {
                number: plain(number),
                bit,
            })
    }

    /// What RDMSR of `number`, which is `value` on the CPU, shows.
    pub fn shown(self, number: u32, value: u64) -> u64 {
        match self {
            Self::Capability { number: of, bit } if of == plain(number) => {
                let at = if is_of_control_word(of) {
                    bit + 32
                } else {
                    bit
                };
                value & !1u64.checked_shl(at).unwrap_or(0)
            }
            _ => value,
        }
    }

    /// Whether it is this field.
    pub fn is_field(self, field: Field) -> bool {
        self == Self::Field(field)
    }
}

/// Whether a control word may have this value on a CPU with these capabilities. Any
/// other field may have any.
pub fn permits(caps: &VmxCaps, to: Field, value: u64) -> bool {
    let value = value as u32;
    match to {
        field::PIN_BASED_CONTROLS => caps.pin().permits(value),
        field::PRIMARY_PROCESSOR_BASED_CONTROLS => caps.proc().permits(value),
        field::SECONDARY_PROCESSOR_BASED_CONTROLS => caps.proc2.permits(value),
        field::PRIMARY_VM_EXIT_CONTROLS => caps.exit().permits(value),
        field::VM_ENTRY_CONTROLS => caps.entry().permits(value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_vmcs::caps::Allowed;

    #[test]
    fn a_lack_is_read_and_taken_away() {
        let misc = Lack::parse(b"485.7").unwrap();
        assert_eq!(misc.shown(0x485, 0x1c0), 0x140);
        assert_eq!(misc.shown(0x486, 0x1c0), 0x1c0);
        // Of a control word, the allowed 1-setting, in both MSRs.
        let preemption = Lack::parse(b"48d.6").unwrap();
        assert_eq!(Lack::parse(b"481.6"), Some(preemption));
        for number in [0x481, 0x48d] {
            assert_eq!(preemption.shown(number, u64::MAX), !(1 << 38));
        }
        let field = Lack::parse(b"field.6402").unwrap();
        assert!(field.is_field(field::IO_RCX) && !field.is_field(field::IO_RSI));
        assert_eq!(field.shown(0x485, 7), 7);
    }

    #[test]
    fn what_makes_no_sense_is_no_lack() {
        for bad in [
            "", "485", "485.", "485.64", "10.1", "field.1", "x.1", "field.zz",
        ] {
            assert_eq!(Lack::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_control_that_the_cpu_lacks_is_seen() {
        let mut caps = VmxCaps {
            proc2: Allowed(0xff << 32),
            ..VmxCaps::default()
        };
        let to = field::SECONDARY_PROCESSOR_BASED_CONTROLS;
        assert!(permits(&caps, to, 0x22));
        caps.proc2 = Allowed(Lack::parse(b"48b.5").unwrap().shown(0x48b, caps.proc2.0));
        assert!(!permits(&caps, to, 0x22));
        assert!(permits(&caps, field::GUEST_RIP, 0x22));
    }
}

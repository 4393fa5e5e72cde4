//! hello: says that it is there, and to whom it has talked.
//!
//! | number | asked by | EAX | EBX | ECX | EDX |
//! |---|---|---|---|---|---|
//! | 0 | CPUID of L1 | "HELO" | the CPU's number | calls of L1 on this CPU | calls of L2 on this CPU |
//! | 0 | VMCALL | "HELO" | ECX + EDX | the caller's level | the calls of that level, this one too |
//! | 1 | VMCALL | #GP(0) | | | |

use crate::{Answer, Call, Hypapp, Level, Words};
use umbra_arch::Exception;

/// "HELO".
pub const SIGNATURE: u32 = u32::from_le_bytes(*b"HELO");

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hello {
    cpu: u32,
    /// Calls of L1 and of L2.
    calls: [u32; 2],
}

impl Hypapp for Hello {
    fn start(&mut self, cpu: u32) {
        self.cpu = cpu;
    }

    fn cpuid(&mut self, call: &Call) -> Option<Words> {
        let [of_l1, of_l2] = self.calls;
        (call.number == 0).then_some([SIGNATURE, self.cpu, of_l1, of_l2])
    }

    fn vmcall(&mut self, call: &Call) -> Answer<Words> {
        match call.number {
            0 => {
                let [a, b] = call.arguments.map(|argument| argument as u32);
                let (level, calls) = match (call.level, &mut self.calls) {
                    (Level::L1, [calls, _]) => (1, calls),
                    (Level::L2, [_, calls]) => (2, calls),
                };
                *calls = calls.wrapping_add(1);
                Answer::Handled([SIGNATURE, a.wrapping_add(b), level, *calls])
            }
            1 => Answer::Fault(Exception::GP),
            _ => Answer::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(level: Level, number: u32) -> Call {
        Call {
            number,
            arguments: [5, 0xffff_ffff_ffff_ffff],
            level,
            is_kernel: false,
        }
    }

    #[test]
    fn it_counts_the_calls_of_each_level() {
        let mut hello = Hello::default();
        hello.start(3);
        let answers = [Level::L1, Level::L2, Level::L2].map(|by| hello.vmcall(&call(by, 0)));
        assert_eq!(
            answers,
            [(1, 1), (2, 1), (2, 2)]
                .map(|(level, calls)| { Answer::Handled([SIGNATURE, 4, level, calls]) })
        );
        let leaf = call(Level::L1, 0);
        assert_eq!(hello.cpuid(&leaf), Some([SIGNATURE, 3, 1, 2]));
    }

    #[test]
    fn what_it_does_not_know_goes_on() {
        let mut hello = Hello::default();
        let fault = Answer::Fault(Exception::GP);
        assert_eq!(hello.vmcall(&call(Level::L1, 1)), fault);
        assert_eq!(hello.vmcall(&call(Level::L1, 2)), Answer::Pass);
        assert_eq!(hello.cpuid(&call(Level::L1, 1)), None);
    }
}

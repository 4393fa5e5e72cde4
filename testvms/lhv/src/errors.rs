//! Soon.
use crate::tester::Tester;
/// Runs the family.
pub fn run(_t: &mut Tester) {}
use rt::vmx::VmxError;
/// Whether a result is an exception of this vector.
pub fn is_fault(result: Result<(), VmxError>, vector: u8) -> bool {
    matches!(result, Err(VmxError::Fault(fault)) if fault.vector == vector)
}

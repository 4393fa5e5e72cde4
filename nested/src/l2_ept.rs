//! EPT violations of L2.

use umbra_arch::event::vector;
use umbra_arch::qualification::EptViolation;
use umbra_arch::{Cr0, Exception, Gpa1, Gpa2};
use umbra_ept::ept02::Outcome;
use umbra_ept::ept12::Violation;
use umbra_ept::rights::Access;
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::entry::invalidate;
use crate::event::event_in;
use crate::exit::L2Done;
use crate::hw::{Hardware, Memory, Msrs, Translations, VmcsAccess};
use crate::slots::SlotId;
use crate::state::Nested;

/// The virtualization exception.
const VE: Exception = Exception::plain(vector::VE);

impl Nested {
    /// An EPT violation (or a misconfiguration) that the CPU found in ept02.
    pub(crate) fn l2_ept_violation(
        &mut self,
        hw: &mut impl Hardware,
        id: SlotId,
        reason: Reason,
    ) -> L2Done {
        let gpa2 = hw.read(field::GUEST_PHYSICAL_ADDRESS);
        if gpa2 & !self.cpu.physical_mask() != 0 {
            return self.l2_beyond_width(hw, id);
        }
        let violation =
            (reason == Reason::EptViolation).then(|| hw.read(field::EXIT_QUALIFICATION));
        let Some(context) = self.context12(id) else {
            // L2 runs on ept01, which maps rare addresses on demand.
            // Its addresses are L1's then.
            if !hw.map_ept01(Gpa1::new(gpa2)) {
                return self.l2_beyond_width(hw, id);
            }
            self.resume_l2(hw, id, violation);
            return L2Done::Resume;
        };
        let qualification = violation.unwrap_or(1);
        let mut access = Access::from_qualification(qualification, context.caps.advanced_info);
        let walks_l2_tables = EptViolation::LINEAR_VALID.is_in(qualification)
            && !EptViolation::TO_TRANSLATION.is_in(qualification);
        if walks_l2_tables && context.eptp.accessed_dirty() {
            // Whatever the CPU says of it: SDM "Exit Qualification for EPT
            // Violations", bits 0 and 1.
            access |= Access::READ | Access::WRITE;
        }
        let pml = self.pml12(id);
        let outcome = {
            let (mut tables, mut memory) = hw.ept();
            self.pool.fill(
                &context,
                Gpa2::new(gpa2),
                access,
                pml,
                &mut tables,
                &mut memory,
            )
        };
        match outcome {
            Outcome::Filled {
                log,
                invalidate: owed,
                ..
            } => {
                invalidate(hw, owed);
                if let Some(gpa2) = log {
                    self.log_page(hw, id, gpa2);
                }
            }
            Outcome::AlreadyThere | Outcome::Retry => {}
            Outcome::Violation12(violation) => {
                return self.violation12(hw, id, &violation, qualification);
            }
            Outcome::Misconfig12(_) | Outcome::Denied01 { .. } => {
                return self.reflect_changed(hw, id, Reason::EptMisconfiguration, 0);
            }
            Outcome::PmlFull => {
                // Bit 12 is the NMI unblocking of the access, as in hardware.
                let bit = qualification & 1 << 12;
                return self.reflect_changed(hw, id, Reason::PmlFull, bit);
            }
        }
        self.resume_l2(hw, id, violation);
        L2Done::Resume
    }

    fn violation12(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        violation: &Violation,
        hardware: u64,
    ) -> L2Done {
        let qualification = violation.qualification(hardware);
        if violation.convertible && self.convert_to_ve(hw, id, qualification) {
            if self.raise_in_l2(hw, id, VE) {
                self.continue_l2(hw);
                return L2Done::Resume;
            }
            return self.reflect_event(hw, Reason::ExceptionOrNmi as u32);
        }
        let gpa2 = hw.read(field::GUEST_PHYSICAL_ADDRESS);
        self.slots.get(id).told_of_violation(Gpa2::new(gpa2));
        self.reflect_changed(hw, id, Reason::EptViolation, qualification)
    }

    /// Reflects with another reason and qualification than the CPU recorded.
    fn reflect_changed(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        reason: Reason,
        qualification: u64,
    ) -> L2Done {
        let slot = self.slots.get(id);
        slot.cpu_stored_information(self.fields);
        slot.l0_records(field::EXIT_QUALIFICATION, qualification);
        self.reflect_event(hw, reason as u32)
    }

    /// Logs a page whose dirty flag was set in L1's page-modification log.
    /// SDM "Page-Modification Logging".
    fn log_page(&mut self, hw: &mut impl Memory, id: SlotId, gpa2: Gpa2) {
        let slot = self.slots.get(id);
        let index = slot.get(field::PML_INDEX);
        let log = slot.gpa1(field::PML_ADDRESS);
        if index > 511 {
            return;
        }
        hw.write_l1(log.plus(8 * index), &gpa2.raw().to_le_bytes());
        slot.l0_records(field::PML_INDEX, index.wrapping_sub(1));
    }

    /// Whether a convertible violation becomes #VE, its information area then
    /// written. SDM "Convertible EPT Violations", "Virtualization-Exception
    /// Information".
    fn convert_to_ve(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory),
        id: SlotId,
        qualification: u64,
    ) -> bool {
        let slot = self.slots.get(id);
        let in_protected_mode = Cr0::PE.is_in(hw.read(field::GUEST_CR0));
        let delivering = event_in(hw, field::IDT_VECTORING_INFORMATION).valid();
        if !slot.proc2(Proc2::EPT_VIOLATION_VE) || !in_protected_mode || delivering {
            return false;
        }
        let area = slot.gpa1(field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS);
        let mut busy = [0; 4];
        hw.read_l1(area.plus(4), &mut busy);
        if busy != [0; 4] {
            return false;
        }
        let linear = hw.read(field::GUEST_LINEAR_ADDRESS);
        let gpa2 = hw.read(field::GUEST_PHYSICAL_ADDRESS);
        let index = slot.get(field::EPTP_INDEX) as u16;
        let mut bytes = [0; 34];
        bytes[0..4].copy_from_slice(&(Reason::EptViolation as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes[8..16].copy_from_slice(&qualification.to_le_bytes());
        bytes[16..24].copy_from_slice(&linear.to_le_bytes());
        bytes[24..32].copy_from_slice(&gpa2.to_le_bytes());
        bytes[32..34].copy_from_slice(&index.to_le_bytes());
        hw.write_l1(area, &bytes);
        true
    }
}

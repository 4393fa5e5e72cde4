//! L1's own paging, walked by L0 for the operand of an instruction of L1.
//!
//! SDM volume 3A, chapter "Paging". The accesses are L1's explicit
//! supervisor-mode data accesses unless said otherwise; accessed and dirty
//! flags are set as the CPU sets them.

use umbra_arch::msr;
use umbra_arch::paging::Pte;
use umbra_arch::{Cr0, Cr4, Efer, Exception, Gpa1, Linear, PageFaultCode, Rflags};
use umbra_vmcs::field;

use crate::fault::Refusal;
use crate::hw::{Memory, Msrs, Registers, VmcsAccess};
use crate::linear::LinearForm;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A write.
    pub write: bool,
    /// CPL is 3.
    pub user: bool,
}

impl Access {
    /// A read by supervisor code.
    pub const READ: Self = Self {
        write: false,
        user: false,
    };
    /// A write by supervisor code.
    pub const WRITE: Self = Self {
        write: true,
        user: false,
    };

    /// What the access adds to the error code of a page fault.
    fn error_code(self) -> PageFaultCode {
        let mut code = PageFaultCode::empty();
        code.set(PageFaultCode::W, self.write);
        code.set(PageFaultCode::U, self.user);
        code
    }

    /// The error code of a page fault of this access to a page that is there.
    pub fn error_code_present(self) -> PageFaultCode {
        PageFaultCode::P | self.error_code()
    }
}

/// How often a walk starts anew because an entry changed under it. A CPU does so
/// without end; L0, for whom another CPU of L1 could keep that up, lets L1
/// execute the instruction again instead, and take its interrupts in between.
const WALKS: u32 = 64;

const A: u64 = Pte::A.bits();
const A_AND_D: u64 = Pte::A.union(Pte::D).bits();
const RW_AND_US: u64 = Pte::RW.union(Pte::US).bits();

/// The most levels that a walk has.
const LEVELS: usize = 5;

/// The last walk, with the entries that it met: as long as they are what they were, so
/// is what it came to. They are read again each time, as a walk would read them, so that
/// nothing is kept that a CPU would not find; only what follows from them is.
#[derive(Debug)]
pub struct Walked {
    /// L1's state, the page's first linear address, and the access; `None` after a walk
    /// that cannot be remembered.
    what: Option<(Paging, Linear, Access)>,
    entries: [(Gpa1, u64); LEVELS],
    met: usize,
    /// The first byte of the 4 KiB page.
    page: Gpa1,
}

impl Default for Walked {
    fn default() -> Self {
        Self::new()
    }
}

impl Walked {
    /// No walk yet.
    pub const fn new() -> Self {
        Self {
            what: None,
            entries: [(Gpa1::new(0), 0); LEVELS],
            met: 0,
            page: Gpa1::new(0),
        }
    }

    /// Whether this is the walk that was done last, and would meet the same entries.
    #[inline(always)]
    fn holds(&self, hw: &impl Memory, what: &(Paging, Linear, Access)) -> bool {
        self.what.as_ref() == Some(what)
            && self
                .entries
                .get(..self.met)
                .is_some_and(|met| hw.holds_l1(met))
    }

    fn begin(&mut self) {
        self.what = None;
        self.met = 0;
    }

    /// The walk went through this entry at this L1-physical address, with its flags
    /// set.
    fn met(&mut self, at: Gpa1, entry: u64) {
        if let Some(place) = self.entries.get_mut(self.met) {
            *place = (at, entry);
            self.met += 1;
        }
    }

    fn finish(&mut self, what: (Paging, Linear, Access), page: Gpa1) {
        self.what = Some(what);
        self.page = page;
    }
}

/// The parts of L1's state that its paging depends on. vmcs01 must be current
/// when it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    rflags: u64,
    physical_bits: u32,
    gib_pages: bool,
}

impl Paging {
    /// Reads L1's state from vmcs01. `physical_bits` is MAXPHYADDR.
    #[inline(always)]
    pub fn of_l1(hw: &mut impl VmcsAccess, physical_bits: u32, gib_pages: bool) -> Self {
        Self {
            cr0: hw.read(field::GUEST_CR0),
            cr3: hw.read(field::GUEST_CR3),
            cr4: hw.read(field::GUEST_CR4),
            efer: hw.read(field::GUEST_IA32_EFER),
            rflags: hw.read(field::GUEST_RFLAGS),
            physical_bits,
            gib_pages,
        }
    }

    /// The linear address that a data access of this length in 64-bit mode goes to:
    /// see [`LinearForm::resolve`].
    #[inline(always)]
    pub const fn resolve(&self, address: u64, length_bytes: u64) -> Option<Linear> {
        // Below 2 GiB an address is good whatever is masked.
        if (address | address.wrapping_add(length_bytes)) >> 31 == 0 {
            return Some(Linear::new(address));
        }
        LinearForm::new(self.cr3, self.cr4).resolve(address, length_bytes)
    }

    /// The L1-physical address behind a linear one. In 64-bit mode the address
    /// is canonical, without metadata.
    ///
    /// # Errors
    /// The page fault that the CPU would raise; [`Refusal::Again`] if the
    /// entries changed under the walk time and again.
    #[inline]
    pub fn translate(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        linear: Linear,
        access: Access,
    ) -> Result<Gpa1, Refusal> {
        if walked.holds(hw, &self.what(linear, access)) {
            return Ok(walked.page.plus(linear.page_offset()));
        }
        self.translate_anew(hw, walked, linear, access)
    }

    #[inline(never)]
    fn translate_anew(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        linear: Linear,
        access: Access,
    ) -> Result<Gpa1, Refusal> {
        for _ in 0..WALKS {
            walked.begin();
            if let Some(physical) = self.walk(hw, walked, linear, access)? {
                if self.can_be_remembered() {
                    walked.finish(self.what(linear, access), physical.page());
                }
                return Ok(physical);
            }
        }
        Err(Refusal::Again)
    }

    /// The walk, by what it starts from.
    #[inline]
    const fn what(&self, linear: Linear, access: Access) -> (Self, Linear, Access) {
        (self.dependencies(), linear.page(), access)
    }

    /// What a walk depends on besides the entries.
    const fn dependencies(&self) -> Self {
        Self {
            rflags: self.rflags & Rflags::AC.bits(),
            ..*self
        }
    }

    /// A walk of 64-bit entries alone can, and only without protection keys, whose
    /// rights are in registers.
    const fn can_be_remembered(&self) -> bool {
        Cr0::PG.is_in(self.cr0)
            && Efer::LMA.is_in(self.efer)
            && !Cr4::PKE.union(Cr4::PKS).any_in(self.cr4)
    }

    /// One walk; `None` if an entry changed before its flags could be set.
    fn walk(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        linear: Linear,
        access: Access,
    ) -> Result<Option<Gpa1>, Exception> {
        if !Cr0::PG.is_in(self.cr0) {
            return Ok(Some(Gpa1::new(linear.in_32_bits().raw())));
        }
        if Efer::LMA.is_in(self.efer) {
            let levels = if Cr4::LA57.is_in(self.cr4) { 5 } else { 4 };
            let root = Gpa1::new(self.cr3 & self.address_mask());
            return self.walk_wide(hw, walked, linear, access, root, levels);
        }
        if Cr4::PAE.is_in(self.cr4) {
            return self.walk_pae(hw, walked, linear.in_32_bits(), access);
        }
        self.walk_32(hw, linear.in_32_bits(), access)
    }

    /// Bits 51:12 within the physical-address width.
    fn address_mask(&self) -> u64 {
        ((1_u64 << self.physical_bits.clamp(32, 52)) - 1) & !0xfff
    }

    fn fault(&self, linear: Linear, access: Access, error: PageFaultCode) -> Exception {
        Exception::page(linear, (access.error_code() | error).bits())
    }

    /// Reads an entry; page-table entries are aligned, so one read is whole.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "an entry has 4 or 8 bytes")]
    fn entry(hw: &impl Memory, gpa: Gpa1, wide: bool) -> u64 {
        let mut bytes = [0; 8];
        hw.read_l1(gpa, &mut bytes[..if wide { 8 } else { 4 }]);
        u64::from_le_bytes(bytes)
    }

    /// Rights and protection keys of the finished walk. `rights` is the AND
    /// of every level, `leaf` the entry that maps the page.
    fn permit(
        &self,
        hw: &mut (impl Registers + Msrs),
        linear: Linear,
        access: Access,
        rights: u64,
        leaf: u64,
    ) -> Result<(), Exception> {
        let user_page = Pte::US.is_in(rights);
        let denied = if access.user {
            !user_page || access.write && !Pte::RW.is_in(rights)
        } else {
            // SMAP guards user pages from explicit supervisor accesses while
            // RFLAGS.AC is 0.
            user_page && Cr4::SMAP.is_in(self.cr4) && !Rflags::AC.is_in(self.rflags)
                || access.write && !Pte::RW.is_in(rights) && Cr0::WP.is_in(self.cr0)
        };
        if denied {
            return Err(self.fault(linear, access, PageFaultCode::P));
        }
        if Efer::LMA.is_in(self.efer) {
            self.permit_by_key(hw, linear, access, user_page, leaf)?;
        }
        Ok(())
    }

    /// SDM "Protection Keys": in IA-32e paging each page has a key, and PKRU
    /// governs those that user code could reach, IA32_PKRS the others.
    fn permit_by_key(
        &self,
        hw: &mut (impl Registers + Msrs),
        linear: Linear,
        access: Access,
        user_page: bool,
        leaf: u64,
    ) -> Result<(), Exception> {
        let is_on = if user_page { Cr4::PKE } else { Cr4::PKS };
        if !is_on.is_in(self.cr4) {
            return Ok(());
        }
        let rights = if user_page {
            hw.pkru()
        } else {
            // A CPU with CR4.PKS has the MSR.
            hw.rdmsr_l1(msr::IA32_PKRS).unwrap_or(0) as u32
        };
        let key = (leaf >> 59 & 0xf) as u32;
        let rights = rights >> (2 * key);
        let write_disabled =
            rights & 2 != 0 && access.write && (access.user || Cr0::WP.is_in(self.cr0));
        if rights & 1 != 0 || write_disabled {
            return Err(self.fault(linear, access, PageFaultCode::P | PageFaultCode::PK));
        }
        Ok(())
    }

    /// The walk of 64-bit entries: 4- and 5-level paging, and the last two
    /// levels of PAE paging.
    fn walk_wide(
        &self,
        hw: &mut (impl Registers + Memory + Msrs),
        walked: &mut Walked,
        linear: Linear,
        access: Access,
        root: Gpa1,
        levels: u32,
    ) -> Result<Option<Gpa1>, Exception> {
        let mut table = root;
        let mut rights = RW_AND_US;
        let mut level = levels;
        loop {
            let shift = 12 + 9 * (level - 1);
            let at = table.plus(8 * (linear.raw() >> shift & 0x1ff));
            let entry = Self::entry(hw, at, true);
            if !Pte::P.is_in(entry) {
                return Err(self.fault(linear, access, PageFaultCode::empty()));
            }
            let may_be_leaf = level == 2 || level == 3 && levels > 2 && self.gib_pages;
            let is_leaf = level == 1 || Pte::PS.is_in(entry) && may_be_leaf;
            if entry & self.reserved_wide(level, levels, is_leaf) != 0 {
                return Err(self.fault(linear, access, PageFaultCode::P | PageFaultCode::RSVD));
            }
            rights &= entry;
            if !is_leaf {
                if !Pte::A.is_in(entry) && !hw.set_bits_l1(at, true, entry, A) {
                    return Ok(None);
                }
                walked.met(at, entry | A);
                table = Gpa1::new(entry & self.address_mask());
                level -= 1;
                continue;
            }
            self.permit(hw, linear, access, rights, entry)?;
            let wanted = if access.write { A_AND_D } else { A };
            if entry & wanted != wanted && !hw.set_bits_l1(at, true, entry, wanted) {
                return Ok(None);
            }
            walked.met(at, entry | wanted);
            let offset = (1_u64 << shift) - 1;
            let page = Gpa1::new(entry & self.address_mask() & !offset);
            return Ok(Some(page.plus(linear.raw() & offset)));
        }
    }

    /// The bits that must be 0 in a 64-bit entry.
    fn reserved_wide(&self, level: u32, levels: u32, is_leaf: bool) -> u64 {
        let ia32e = levels > 2;
        // Above the width up to bit 51; PAE paging reserves up to bit 62.
        let top: u64 = if ia32e { (1 << 52) - 1 } else { (1 << 63) - 1 };
        let mut reserved = top & !(self.address_mask() | 0xfff);
        if !Efer::NXE.is_in(self.efer) {
            reserved |= Pte::XD.bits();
        }
        if is_leaf && level > 1 {
            // Bit 12 is the PAT bit of a large leaf.
            reserved |= ((1 << (12 + 9 * (level - 1))) - 1) & !0x1fff;
        }
        if !is_leaf && level >= 3 {
            reserved |= Pte::PS.bits();
        }
        reserved
    }

    /// PAE paging: the four PDPTEs are registers, and under EPT they lie in
    /// vmcs01. SDM "PDPTE Registers".
    fn walk_pae(
        &self,
        hw: &mut (impl VmcsAccess + Registers + Memory + Msrs),
        walked: &mut Walked,
        linear: Linear,
        access: Access,
    ) -> Result<Option<Gpa1>, Exception> {
        #[expect(clippy::indexing_slicing, reason = "two bits choose of four")]
        let pdpte = hw.read(
            [
                field::GUEST_PDPTE0,
                field::GUEST_PDPTE1,
                field::GUEST_PDPTE2,
                field::GUEST_PDPTE3,
            ][(linear.raw() >> 30 & 3) as usize],
        );
        if !Pte::P.is_in(pdpte) {
            return Err(self.fault(linear, access, PageFaultCode::empty()));
        }
        let directory = Gpa1::new(pdpte & self.address_mask());
        self.walk_wide(hw, walked, linear, access, directory, 2)
    }

    /// 32-bit paging, with 4 MiB pages where CR4.PSE allows them.
    fn walk_32(
        &self,
        hw: &mut (impl Registers + Memory + Msrs),
        linear: Linear,
        access: Access,
    ) -> Result<Option<Gpa1>, Exception> {
        let directory = Gpa1::new(self.cr3 & 0xffff_f000).plus(4 * (linear.raw() >> 22 & 0x3ff));
        let entry = Self::entry(hw, directory, false);
        if !Pte::P.is_in(entry) {
            return Err(self.fault(linear, access, PageFaultCode::empty()));
        }
        let is_large = Pte::PS.is_in(entry) && Cr4::PSE.is_in(self.cr4);
        // PSE-36: bits 20:13 are address bits 39:32 as far as the width
        // reaches; the rest is reserved.
        let high_bits = self.physical_bits.clamp(32, 40) - 32;
        let high_mask = ((1_u64 << high_bits) - 1) << 13;
        if is_large {
            if entry & (0x1ff << 13) & !high_mask != 0 {
                return Err(self.fault(linear, access, PageFaultCode::P | PageFaultCode::RSVD));
            }
            let is_mapped = self.use_leaf_32(hw, linear, access, directory, entry, RW_AND_US)?;
            let high = (entry & high_mask) >> 13 << 32;
            let page = Gpa1::new(high | entry & 0xffc0_0000);
            return Ok(is_mapped.then_some(page.plus(linear.raw() & 0x3f_ffff)));
        }
        if !Pte::A.is_in(entry) && !hw.set_bits_l1(directory, false, entry, A) {
            return Ok(None);
        }
        let at = Gpa1::new(entry & 0xffff_f000).plus(4 * (linear.raw() >> 12 & 0x3ff));
        let leaf = Self::entry(hw, at, false);
        if !Pte::P.is_in(leaf) {
            return Err(self.fault(linear, access, PageFaultCode::empty()));
        }
        let is_mapped = self.use_leaf_32(hw, linear, access, at, leaf, entry)?;
        Ok(is_mapped.then_some(Gpa1::new(leaf & 0xffff_f000).plus(linear.page_offset())))
    }

    /// Checks the rights of a 32-bit leaf under an entry with the rights of
    /// `above`, and sets its flags; false if it changed meanwhile.
    fn use_leaf_32(
        &self,
        hw: &mut (impl Registers + Memory + Msrs),
        linear: Linear,
        access: Access,
        at: Gpa1,
        leaf: u64,
        above: u64,
    ) -> Result<bool, Exception> {
        self.permit(hw, linear, access, above & leaf, leaf)?;
        let wanted = if access.write { A_AND_D } else { A };
        Ok(leaf & wanted == wanted || hw.set_bits_l1(at, false, leaf, wanted))
    }
}

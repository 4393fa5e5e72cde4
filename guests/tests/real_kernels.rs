//! Real kernel files, where the machine has some: set `UMBRA_TEST_KERNELS` to
//! a colon-separated list of files. Without it there is nothing to check here,
//! and the test says so.

mod common;

use common::{MIB, Ram, noise, pc_map};
use umbra_guests::{Handover, KernelKind, ModuleRef, Region, identify, start};

#[test]
fn real_kernels_start() {
    let Some(list) = std::env::var_os("UMBRA_TEST_KERNELS") else {
        eprintln!("UMBRA_TEST_KERNELS is not set: no real kernel checked");
        return;
    };
    for path in std::env::split_paths(&list) {
        let file = std::fs::read(&path).unwrap();
        let map = pc_map(512, 16);
        let mut ram = Ram::new(512 * MIB);
        let kernel = ram.put(4 * MIB, &file);
        let module_at = (4 * MIB + file.len() as u64).next_multiple_of(4096);
        let module = noise(5 << 20, 1);
        let modules = [ModuleRef {
            region: ram.put(module_at, &module),
            string: b"module",
        }];
        let mut handover = Handover::new(&map, kernel);
        handover.modules = &modules;
        handover.command_line = b"console=ttyS0";
        let (kind, state) = start(&mut ram, &handover).unwrap();
        eprintln!("{}: {kind}, entered at {:#x}", path.display(), state.rip);
        assert_eq!(identify(&file[..file.len().min(32768)]), Ok(kind));
        // Something is there to execute, in RAM.
        assert!(map.usable_around(Region::new(state.rip, 64)).is_some());
        let code = ram.bytes(state.rip, 64);
        assert!(code.iter().any(|&b| b != 0xcc && b != 0), "{code:x?}");
        if kind == KernelKind::Linux {
            let setup_bytes = (usize::from(file[0x1f1]) + 1) * 512;
            assert_eq!(code, &file[setup_bytes..setup_bytes + 64]);
            let at = ram.u32(state.gpr.rsi + 0x218);
            assert!(ram.bytes(at.into(), module.len() as u64) == &module[..]);
        }
    }
}

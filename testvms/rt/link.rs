//! Links the program as a test VM.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../rt/link.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
    for option in ["--build-id=none", "-z,max-page-size=4096", "-z,norelro"] {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
}

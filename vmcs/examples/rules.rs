//! Prints the page `docs/rules.md`.

use umbra_vmcs::rules::doc;

fn main() {
    let mut page = String::new();
    match doc::write_page(&mut page) {
        Ok(()) => print!("{page}"),
        Err(error) => {
            eprintln!("rules: cannot write the page: {error}");
            std::process::exit(1);
        }
    }
}

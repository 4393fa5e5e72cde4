//! The generated page in `docs/` is what the rows say.

use std::path::Path;

use umbra_vmcs::rules::doc;

#[test]
fn the_page_of_rules_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut page = String::new();
    doc::write_page(&mut page).expect("a String takes all");
    assert!(
        committed == page,
        "docs/rules.md differs from the rows: \
         run `cargo run -p umbra-vmcs --example rules > docs/rules.md`"
    );
}

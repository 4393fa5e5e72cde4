//! The chart: a bar for each figure, as long as its logarithm.

use super::rows::{COLUMNS, ROWS};
use super::table::{Table, thousands};

/// Sizes in pixels.
const NAME_WIDTH: u32 = 190;
const BAR_WIDTH: u32 = 560;
const FIGURE_WIDTH: u32 = 90;
const BAR_HEIGHT: u32 = 7;
const GAP: u32 = 6;
const HEAD: u32 = 40;
/// The longest bar stands for ten to this many ticks.
const DECADES: f64 = 8.0;
/// One for each column.
const COLOURS: [&str; 4] = ["#9aa0a6", "#1a73e8", "#9334e6", "#e8710a"];

/// The chart as an SVG file.
pub fn svg(table: &Table) -> String {
    let mut bars = String::new();
    let mut y = HEAD;
    for row in ROWS {
        let figures: Vec<_> = COLUMNS
            .iter()
            .zip(COLOURS)
            .filter_map(|(column, colour)| Some((table.get(row.name, column.name)?, colour)))
            .collect();
        if figures.is_empty() {
            continue;
        }
        bars.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
            NAME_WIDTH - 8,
            y + 9,
            row.name
        ));
        for (ticks, colour) in figures {
            let width = length(ticks);
            bars.push_str(&format!(
                "<rect x=\"{NAME_WIDTH}\" y=\"{y}\" width=\"{width}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\n\
                 <text x=\"{}\" y=\"{}\" class=\"n\">{}</text>\n",
                NAME_WIDTH + width + 3,
                y + BAR_HEIGHT,
                thousands(ticks)
            ));
            y += BAR_HEIGHT;
        }
        y += GAP;
    }
    let mut head = String::new();
    for (n, (column, colour)) in COLUMNS.iter().zip(COLOURS).enumerate() {
        let x = NAME_WIDTH + n as u32 * 120;
        head.push_str(&format!(
            "<rect x=\"{x}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"19\">{}</text>\n",
            x + 14,
            column.heading
        ));
    }
    let width = NAME_WIDTH + BAR_WIDTH + FIGURE_WIDTH;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>Ticks for each operation, logarithmic</title>\n\
         <style>.n {{ font-size: 7px; fill: #555 }}</style>\n\
         <rect width=\"{width}\" height=\"{y}\" fill=\"white\"/>\n{head}{bars}</svg>\n"
    )
}

/// A bar's length in pixels: nothing for no tick, and a little for one.
fn length(ticks: u64) -> u32 {
    let decades = ((ticks as f64) + 1.0).log10() / DECADES;
    (decades.min(1.0) * f64::from(BAR_WIDTH)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_bar_is_more_ticks() {
        assert_eq!(length(0), 0);
        assert!(length(1) > 0 && length(10) > length(1) && length(1000) > length(100));
        assert_eq!(length(u64::MAX), BAR_WIDTH);
    }

    #[test]
    fn rows_without_figures_have_no_bars() {
        let table = Table::parse("row,native,umbra,umbra2,kvm\nvmread,1,480,,\n").unwrap();
        let svg = svg(&table);
        assert_eq!(svg.matches("<rect").count(), 1 + 4 + 2);
        assert!(svg.contains(">vmread<") && svg.contains(">480<") && !svg.contains(">vmwrite<"));
    }
}

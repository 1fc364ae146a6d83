//! Columns as Go's `text/tabwriter` sets them with Docker's parameters (at least ten wide, three apart),
//! so that scripts which cut `docker ps` by position cut this as well.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns tab-separated cells. The last cell of a line ends no column and is left as it is.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let most = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..most {
        set_widths(&lines, &mut widths, column);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        let last = cells.len().saturating_sub(1);
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if index < last {
                out.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()),
                ));
            }
        }
        out.push('\n');
    }
    out
}

/// A column is a run of neighbouring lines that all have a terminated cell there; each run has a width
/// of its own.
fn set_widths(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize) {
    let mut start = 0;
    while start < lines.len() {
        let run = lines
            .iter()
            .skip(start)
            .take_while(|cells| cells.len() > column + 1);
        let mut count = 0;
        let mut width = MIN_WIDTH;
        for cells in run {
            count += 1;
            width = width.max(
                cells
                    .get(column)
                    .map_or(0, |cell| cell.chars().count() + PADDING),
            );
        }
        for line in widths.iter_mut().skip(start).take(count) {
            if let Some(slot) = line.get_mut(column) {
                *slot = width;
            }
        }
        start += count.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_and_three_apart() {
        assert_eq!(
            align("ID\tNAMES\tPORTS\nabcdefghijkl\tweb\t\n"),
            "ID             NAMES     PORTS\nabcdefghijkl   web       \n"
        );
    }

    #[test]
    fn characters_count_not_bytes() {
        assert_eq!(
            align("hello w…\tx\nabcdefgh\ty\n"),
            "hello w…   x\nabcdefgh   y\n"
        );
    }

    #[test]
    fn a_line_without_the_column_ends_its_run() {
        assert_eq!(
            align("a\tb\nlonger than ten\nc\td\n"),
            "a         b\nlonger than ten\nc         d\n"
        );
    }
}

//! Aligned columns for people.

use std::fmt;

/// A table; the first column is aligned to the left, and so are the others unless they hold figures.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with these column titles; columns in `right` are aligned to the right.
    pub fn new(titles: &[&str], right: &[usize]) -> Self {
        Self { rows: vec![titles.iter().map(|&t| t.to_owned()).collect()], right: right.to_vec() }
    }

    /// Appends a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| cell.into().replace(['\n', '\r', '\t'], " ")).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = " ".repeat(width - cell.chars().count());
                let between = if column == 0 { "" } else { "  " };
                line += between;
                if self.right.contains(&column) {
                    line += &(gap + cell);
                } else {
                    line += &(cell.clone() + &gap);
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(&["Layer", "Size"], &[1]);
        table.row(["é\n", "10"]);
        table.row(["long name", "9"]);
        assert_eq!(table.to_string(), "Layer      Size\né            10\nlong name     9\n");
    }
}

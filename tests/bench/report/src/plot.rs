// SPDX-License-Identifier: GPL-2.0

//! The plot of time and faults against size.

use crate::{
    measurement::{Measurements, Median},
    report::bytes,
};
use anyhow::{anyhow, Result};
use plotters::prelude::*;
use std::{fs, io::ErrorKind, path::Path};

/// One line of a plot.
struct Series {
    name: String,
    color: RGBColor,
    points: Vec<(u64, Median)>,
}

fn series(from: &Measurements, variant: &str, name: String, color: RGBColor) -> Series {
    Series {
        name,
        color,
        points: from
            .iter()
            .filter(|(key, _)| key.benchmark == "populate" && key.variant == variant)
            .map(|(key, median)| (key.size, median.clone()))
            .collect(),
    }
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    list: &[Series],
    value: impl Fn(&Median) -> f64,
) -> Result<()> {
    let points = || list.iter().flat_map(|series| &series.points);
    let (Some(first), Some(last)) = (
        points().map(|(size, _)| *size).min(),
        points().map(|(size, _)| *size).max(),
    ) else {
        return Err(anyhow!("nothing was populated"));
    };
    let highest = points()
        .map(|(_, median)| value(median))
        .fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (first as f64..last as f64).log_scale().base(4.0),
            (1.0..highest * 2.0).log_scale(),
        )
        .map_err(|error| anyhow!("{error}"))?;

    chart
        .configure_mesh()
        .x_desc("size of the mapping")
        .x_label_formatter(&|size| bytes(*size as u64))
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .draw()
        .map_err(|error| anyhow!("{error}"))?;
    for Series {
        name,
        color,
        points,
    } in list
    {
        let line = points
            .iter()
            .map(|(size, median)| (*size as f64, value(median)));
        let color = *color;

        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)).point_size(3))
            .map_err(|error| anyhow!("{error}"))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(|error| anyhow!("{error}"))
}

/// Removes the plot of earlier measurements.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes the plot of populating a mapping. If that was not measured, there is none.
pub fn populate(path: &Path, ours: &Measurements, peer: Option<&Measurements>) -> Result<()> {
    let colors = [RED, BLUE, BLACK];
    let mut list: Vec<Series> = ["64 KiB", "2 MiB", "1 GiB"]
        .into_iter()
        .zip(colors)
        .map(|(variant, color)| series(ours, variant, format!("pages of {variant}"), color))
        .collect();

    if let Some(peer) = peer {
        list.push(series(peer, "64 KiB", "original".to_owned(), MAGENTA));
    }

    if list.iter().all(|series| series.points.is_empty()) {
        return remove(path);
    }

    let root = SVGBackend::new(path, (1100, 460)).into_drawing_area();

    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (left, right) = root.split_horizontally(550);

    draw(&left, "Instructions to populate GPU RAM", &list, |median| {
        median.instructions
    })?;
    draw(&right, "Faults", &list, |median| median.count as f64)?;
    root.present().map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_populated_has_no_plot() {
        let path = std::env::temp_dir().join(format!("populate-{}.svg", std::process::id()));
        let nothing = Measurements::parse("# x\n").expect("no lines are fine");

        fs::write(&path, "of an earlier run").expect("a temporary file");
        populate(&path, &nothing, None).expect("nothing to do");
        assert!(!path.exists());
        populate(&path, &nothing, None).expect("nothing to do");
    }
}

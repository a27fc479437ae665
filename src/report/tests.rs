//! Claims about whole pages.

use super::*;

const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"evil()&";

/// A page with everything on it, each text hostile.
fn page() -> Page {
    let axis = || Axis::new(HOSTILE);
    let bars = BarChart::new(HOSTILE, HOSTILE, [HOSTILE, "b"], axis())
        .series(HOSTILE, [Some(1.0), None])
        .intervals([Some((0.5, 1.5)), None])
        .series("men", [Some(f64::NAN), Some(-2.0)]);
    let stacked = BarChart::new("stacked", "n", ["a"], axis()).series("x", [Some(3.0)]).stacked();
    let lines = LineChart::new(HOSTILE, axis(), axis().percent())
        .series(HOSTILE, [(0.0, 0.1), (f64::NAN, 0.2), (1.0, 0.9)])
        .band([(0.0, 0.0, 0.2), (1.0, 0.8, 1.0)])
        .diagonal(HOSTILE);
    let heat = HeatMap::new(
        HOSTILE,
        (HOSTILE, [HOSTILE, "b"]),
        (HOSTILE, ["c", HOSTILE]),
        axis().percent(),
        vec![vec![Some(0.1), Some(0.9)], vec![None]],
    );
    let picture =
        Picture::new(HOSTILE, HOSTILE, (2, vec![0.0, 1.0, 2.0, 3.0]), axis(), axis(), axis());
    let table = Table::new(HOSTILE, [HOSTILE, "n"]).row(HOSTILE, [HOSTILE]).total("all", ["1"]);
    Page::new(HOSTILE, HOSTILE)
        .section(Section::new(HOSTILE).text(HOSTILE).note(HOSTILE).list([HOSTILE]).table(&table))
        .section(Section::new("charts").heading(HOSTILE).figure(bars).figure(stacked))
        .section(Section::new("more").figure(lines).figure(heat).figures([picture]))
}

#[test]
fn every_text_is_escaped() {
    let html = page().render();
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("\" onload"), "{html}");
    assert!(html.contains("&lt;script&gt;alert"));
}

#[test]
fn a_page_refers_to_nothing_outside_itself() {
    let html = page().render();
    for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
        let found = html.find(outside).map(|at| html[at..].chars().take(60).collect::<String>());
        assert_eq!(found, None, "{outside}");
    }
    for part in html.split("href=\"").skip(1) {
        assert!(part.starts_with('#') || part.starts_with("data:image/png;base64,"), "{part:.40}");
    }
}

#[test]
fn every_element_that_is_opened_is_closed() {
    let html = page().render();
    let body = &html[html.find("<body").unwrap()..];
    let mut open = Vec::new();
    for tag in body.split('<').skip(1) {
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        if tag.starts_with('/') {
            if name != "html" {
                assert_eq!(open.pop(), Some(name), "{tag:.60}");
            }
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn every_chart_has_an_alternative_text_and_a_table() {
    let html = page().render();
    let charts = html.matches("<svg class=\"chart\"").count();
    assert_eq!(charts, 5);
    assert_eq!(html.matches("role=\"img\" aria-label=\"").count(), charts);
    assert_eq!(html.matches("<details>").count(), charts - 1, "all but the picture");
}

#[test]
fn no_number_that_is_none_reaches_the_page() {
    let html = page().render();
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
}

#[test]
fn empty_charts_are_drawn() {
    let axis = || Axis::new("a");
    let none: [&str; 0] = [];
    let section = Section::new("empty")
        .figure(BarChart::new("b", "c", none, axis()))
        .figure(BarChart::new("b", "c", ["one"], axis()).stacked())
        .figure(LineChart::new("l", axis(), axis()))
        .figure(HeatMap::new("h", ("r", none), ("c", none), axis(), Vec::new()));
    let html = Page::new("t", "l").section(section).render();
    assert_eq!(html.matches("<svg class=\"chart\"").count(), 4);
    assert!(!html.contains("NaN"), "{html}");
}

#[test]
fn a_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    page().write(&file).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), page().render());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies beside it");
    let nowhere = folder.path().join("missing/report.html");
    let error = page().write(&nowhere).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    // A folder in the way.
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(page().write(&folder.path().join("taken")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn numbers_read_as_people_write_them() {
    assert_eq!(number(1_234_567.0, 0), "1,234,567");
    assert_eq!(number(-0.04, 1), "0.0");
    assert_eq!(number(-1_000.5, 1), "-1,000.5");
    assert_eq!(number(999.0, 0), "999");
    assert_eq!(number(f64::INFINITY, 0), "–");
    assert_eq!(percent(0.4567, 1), "45.7 %");
}

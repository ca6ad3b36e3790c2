//! Rows that cannot be imported: put aside with the line and the reason, and taken once they are put right.

use std::fs;

use super::{INIT, ROWS, run, site_of};

#[test]
fn rejected_rows_can_be_corrected_and_imported() {
    let site = site_of(&ROWS[0], 0);
    assert!(run(&site, INIT).status.success());
    let good = "0123456789abcdef0000";
    let rows = [
        "id,name,value,access,ips,scope,expires",
        &format!("a,First,{good},rw,,,"),
        "b,Short,0123456789abcdef000,rw,,,",
        "c,No access,0123456789abcdef0002,read,,,",
        "",
        "d,Network,0123456789abcdef0003,ro,10.0.0.0/33,,",
        "e,Scope,0123456789abcdef0004,rw,,acme,",
        "f,Time,0123456789abcdef0005,rw,,,90d",
        &format!("g,Twice,{good},rw,,,"),
        "h,Fields,0123456789abcdef0006,rw",
        "a,Same id,0123456789abcdef0007,rw,,,",
        "i,Last,0123456789abcdef0008,ro,,,",
    ];
    site.write("keys.csv", &(rows.join("\n") + "\n"));
    let ended = run(&site, "key import --input keys.csv --output json");
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    assert!(ended.err.contains("imported 2, unchanged 0, rejected 8 (see keys.csv.rejected)"), "{ended:?}");
    let counts: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let expected = serde_json::json!({"imported": 2, "unchanged": 0, "rejected": 8, "rejects": "keys.csv.rejected"});
    assert_eq!(counts, expected);

    let rejected = fs::read_to_string(site.path().join("keys.csv.rejected")).unwrap();
    let mut lines = rejected.lines();
    assert_eq!(lines.next(), Some("line,reason,id,name,value,access,ips,scope,expires"));
    for (line, (number, reason, row)) in lines.by_ref().zip([
        (3, "its value has none of the forms that `keys.shapes` in the config declares", rows[2]),
        (4, "\"`access` must be rw, ro, read-write or read-only\"", rows[3]),
        (6, "\"`ips` must be addresses and networks between commas, or `any`\"", rows[5]),
        (7, "`scope` must be a path such as organization:acme/project:p1", rows[6]),
        (8, "`expires` must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z", rows[7]),
        (9, "its value is that of line 2 too", rows[8]),
        (10, "the header has 7 columns and it has 4", rows[9]),
        (11, "its `id` is that of line 2 too", rows[10]),
    ]) {
        assert!(line.starts_with(&format!("{number},{reason}")) && line.ends_with(row), "{line}\n{row}");
    }
    assert_eq!(lines.next(), None);
    assert!(!ended.err.contains("0123456789"), "{ended:?}");

    // One after another they are put right in the file that they were written to.
    let corrected = rejected
        .replace("0123456789abcdef000,", "0123456789abcdef0001,")
        .replace("0002,read,", "0002,ro,")
        .replace("10.0.0.0/33", "10.0.0.0/8")
        .replace(",acme,", ",organization:acme,")
        .replace(",90d", ",2030-01-31")
        .replace(&format!("g,Twice,{good}"), "g,Twice,0123456789abcdef0009")
        .replace("0006,rw", "0006,rw,,,")
        .replace("a,Same id", "j,Same id");
    site.write("corrected.csv", &corrected);
    let ended = run(&site, "key import --input corrected.csv");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}\n{corrected}");
    assert!(ended.err.contains("imported 8, unchanged 0, rejected 0"), "{ended:?}");
    let ended = run(&site, "key import --input corrected.csv");
    assert!(ended.status.success() && ended.err.contains("imported 0, unchanged 8, rejected 0"), "{ended:?}");
    let list: serde_json::Value = serde_json::from_str(&run(&site, "key list --output json").out).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 10);
}

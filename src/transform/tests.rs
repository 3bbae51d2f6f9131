//! What mappings mean, and that hostile ones stop.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Limits, Mapping};

fn check(text: &str, input: Value, want: Value) {
    let mapping = Mapping::compile(text).unwrap_or_else(|e| panic!("{text}: {e} at {}:{}", e.line, e.column));
    assert_eq!(mapping.run(&input), Ok(want), "{text}");
}

#[test]
fn everyday_mappings_give_what_jq_gives() {
    let order = json!({"id": 250, "status": "Pending", "total": "12.50", "lines": [
        {"sku": "a", "quantity": 2, "price": 1.5}, {"sku": "b", "quantity": 1, "price": 9.5}]});
    check(".id", order.clone(), json!(250));
    check(
        "{id, total: (.total | tonumber), skus: [.lines[].sku]}",
        order.clone(),
        json!({"id": 250, "total": 12.5, "skus": ["a", "b"]}),
    );
    check("[.lines[] | .quantity * .price] | add", order.clone(), json!(12.5));
    check("reduce .lines[] as $l ({}; .[$l.sku] += $l.quantity)", order.clone(), json!({"a": 2, "b": 1}));
    check(
        ".lines |= map(select(.quantity > 1) | del(.price))",
        order.clone(),
        json!({"id": 250, "status": "Pending", "total": "12.50", "lines": [{"sku": "a", "quantity": 2}]}),
    );
    check("\"\\(.id): \\(.status | ascii_downcase)\"", order.clone(), json!("250: pending"));
    check("def f($x): $x + 1; f(.id) // 0", order.clone(), json!(251));
    check(
        ".lines | group_by(.sku) | map({(.[0].sku): length}) | add",
        order.clone(),
        json!({"a": 1, "b": 1}),
    );
    check("[.lines[] as {sku: $s, quantity: $q} | $s * $q]", order.clone(), json!(["aa", "b"]));
    check("with_entries(select(.key | test(\"^t\")))", order.clone(), json!({"total": "12.50"}));
    check("try error(\"x\") catch .", order.clone(), json!("x"));
    check("[limit(3; repeat(1))]", order.clone(), json!([1, 1, 1]));
    check("[.lines | to_entries[] | .key], (.missing?.x)", order.clone(), json!([0, 1]));
    check("[paths(type == \"string\")] | length", order.clone(), json!(4));
    check(".total | split(\".\") | join(\",\")", order.clone(), json!("12,50"));
    check(
        "{payload: {reason: \"erp\", items: [{location_id: 1, sku: .sku, quantity: .on_hand}]}}",
        json!({"sku": "x", "on_hand": 3}),
        json!({"payload": {"reason": "erp", "items": [{"location_id": 1, "sku": "x", "quantity": 3}]}}),
    );
    check("[(1, 2) + (10, 20)] | sort", json!(null), json!([11, 12, 21, 22]));
    check("\"[1, {\\\"a\\\": 2}]\" | fromjson", json!(null), json!([1, {"a": 2}]));
    check("18446744073709551615, 1", json!(null), json!(18_446_744_073_709_551_615_u64));
    check(
        "[.[] | . as $x | {a: $x, b: ($x | tostring)}] | map(.b) | sort | unique",
        json!([3, 1, 3]),
        json!(["1", "3"]),
    );
    check(
        "if .a then .b |= . + 1 elif .c then 2 else 3 end",
        json!({"a": true, "b": 1}),
        json!({"a": true, "b": 2}),
    );
    check(
        "label $out | foreach .[] as $i (0; . + $i; if . > 3 then ., break $out else empty end)",
        json!([1, 2, 3]),
        json!(6),
    );
    check(
        "walk(if type == \"string\" then ascii_upcase end)",
        json!({"a": ["x", 1]}),
        json!({"a": ["X", 1]}),
    );
    check("[.a[1:][], .a[-1], .a[:1][0]]", json!({"a": [1, 2, 3]}), json!([2, 3, 3, 1]));
    check(".a[.i]", json!({"a": [5, 6], "i": 1}), json!(6));
    check("[.a[] | contains(\"b\"), index(\"b\")]", json!({"a": ["abc"]}), json!([true, 1]));
}

#[test]
fn a_heavy_mapping_of_a_large_order_stays_far_inside_the_limits() {
    let line = |n: u32| {
        json!({"id": n, "sku": format!("SKU-{}", n % 50), "quantity": n % 7 + 1, "price": "19.95",
        "options": [{"name": "size", "value": "L"}, {"name": "colour", "value": "red"}]})
    };
    let order = json!({"id": 250, "products": (0..250).map(line).collect::<Vec<_>>()});
    let text = r#"
        def money: tonumber * 100 | round;
        .products |= map(. + {cents: (.price | money * 1)} | .total = .cents * .quantity)
        | {id, lines: [.products[] | select(.quantity > 1) | {sku, total, options: (.options | map("\(.name)=\(.value)") | join(";"))}],
           by_sku: (.products | group_by(.sku) | map({key: .[0].sku, value: (map(.total) | add)}) | from_entries),
           index: (reduce .products[] as $p ({}; .[$p.sku] += $p.quantity))}
        | .count = (.lines | length)"#.replace("\\\\", "\\");
    let mapping = Mapping::compile(&text).unwrap_or_else(|e| panic!("{e} at {}:{}", e.line, e.column));
    let half = Limits {
        steps: Limits::default().steps / 2,
        bytes: Limits::default().bytes / 4,
        ..Limits::default()
    };
    let out = mapping.run_within(&order, &half, &|| false).unwrap();
    assert_eq!(out["by_sku"].as_object().unwrap().len(), 50);
    assert_eq!(out["lines"][0]["options"], "size=L;colour=red");
}

#[test]
fn the_identity_needs_no_engine_and_filters_follow_jq() {
    assert!(Mapping::compile(" . ").unwrap().is_identity() && Mapping::identity().is_identity());
    let test = |text: &str, input: Value| Mapping::compile(text).unwrap().test(&input);
    assert_eq!(test(".status != \"Incomplete\"", json!({"status": "Pending"})), Ok(true));
    assert_eq!(test(".status != \"Incomplete\"", json!({"status": "Incomplete"})), Ok(false));
    assert_eq!(test("select(.a)", json!({})), Ok(false));
    assert_eq!(test(".", json!(null)), Ok(false));
    assert!(test("error(\"no\")", json!(null)).is_err());
}

#[test]
fn numbers_and_texts_survive_the_way_through_the_engine() {
    let value = json!({"a": [0, -1, 1.5, i64::MAX, u64::MAX, 1e300, null, true, "\u{1F600}\u{0}"], "": {}});
    check(".x = 1 | del(.x)", value.clone(), value);
}

#[test]
fn what_does_not_compile_has_its_place() {
    let check = |text: &str, line: usize, column: usize, part: &str| {
        let error = Mapping::compile(text).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    };
    check(".a |", 1, 5, "term");
    check(".a\n| foo(.b)", 2, 3, "undefined filter foo");
    check("$x", 1, 1, "undefined variable $x");
    check("(.a", 1, 4, "closing parenthesis");
    check(".status =! \"x\"", 1, 9, "the end of the expression");
    check("", 1, 1, "term");
    check("\"é\" | §", 1, 7, "");
}

#[test]
fn nothing_outside_the_input_can_be_reached() {
    for text in [
        "now",
        "env",
        "$ENV",
        "env.PATH",
        "input",
        "inputs",
        "debug",
        "stderr",
        "halt",
        "halt(0)",
        "halt_error",
        "input_filename",
        "localtime",
        "strflocaltime(\"%H\")",
        "import \"a\" as a; .",
        "include \"a\"; .",
        "get_search_list",
        "input_line_number",
        "$__prog_args",
    ] {
        assert!(Mapping::compile(text).is_err(), "{text} compiles");
    }
}

/// Mappings that try to take all time, all memory, or the whole stack.
const HOSTILE: [&str; 40] = [
    "def f: f; f",
    "def f: f | f; f",
    "def f: f, f; f",
    "def f: 1 + f; f",
    "def f: [f]; f",
    "def f: try f catch f; f",
    "def f(g): f(g | .); f(1)",
    "def f(g): f(g | g); f(1)",
    "def f(g): def h: f(g | .); h; f(.)",
    "[range(1e12)]",
    "last(range(1e12))",
    "[repeat(1)]",
    "until(false; . )",
    "[recurse([., .])]",
    "reduce range(1e9) as $i (\"x\"; . + .)",
    "reduce range(1e9) as $i ([1]; . + .)",
    "reduce range(60) as $i (1; [., .])",
    "reduce range(60) as $i (1; [., .]) | tojson",
    "reduce range(60) as $i ({}; .a = . | .b = .)",
    "reduce range(60) as $i (\"x\"; \"\\(.)\\(.)\")",
    "reduce range(1e9) as $i (0; [.])",
    "reduce range(1e9) as $i ([1]; group_by(1))",
    "reduce range(1e6) as $i (2; . * .)",
    "\"x\" * 1000000000000",
    "[\"x\" * 1000000] | .[0] * 1000000000 | length",
    "try (def f: f | f; f) catch (def f: f | f; f)",
    "[.[]?, range(1e12) | try error(\"x\") catch .]",
    "first(range(1e12) | select(false))",
    "[range(1e5) as $a | range(1e5) as $b | range(1e5) as $c | 1]",
    "[{a: range(1e4), b: range(1e4), c: range(1e4)}]",
    "[range(1e4) + range(1e4) + range(1e4)]",
    "[range(1e4) < range(1e4)] | length",
    "[\"\\(range(1e4))\\(range(1e4))\"] | length",
    "path(def f: .a | f; f)",
    "path(reduce range(1e9) as $i (.; .a))",
    "[limit(1e9; path(recurse(.a)))] | length",
    "setpath([range(1e6) | \"a\"]; 1)",
    "(\"[\" * 100000) | fromjson",
    "(\"9\" * 1000000) | tonumber",
    "\"aaaaaaaaaaaaaaaaaaaa\" * 1000 | test(\"((a{100}){100}){100}b\")",
];

#[test]
fn hostile_mappings_stop_in_time() {
    for text in HOSTILE {
        let mapping = Mapping::compile(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let began = Instant::now();
        let deadline = || began.elapsed() > Duration::from_millis(120);
        let result = mapping.run_within(&json!(null), &Limits::default(), &deadline);
        let took = began.elapsed();
        println!("{took:?} {text}: {:?}", result.as_ref().map_err(|e| e.message.as_str()).map(|_| "done"));
        // Without the deadline none of them would end; the rest is what a busy machine may take to come back.
        assert!(took < Duration::from_secs(2), "{text} took {took:?}");
        assert!(result.is_err_and(|error| error.stopped), "{text}");
    }
}

#[test]
fn an_assertion_inside_the_engine_is_an_error_of_the_mapping() {
    let mapping = Mapping::compile("[-9223372036854775808] | implode").unwrap();
    assert!(mapping.run(&json!(null)).is_err());
}

#[test]
fn chains_are_freed_on_a_small_stack() {
    for text in
        ["def f(g): f(g | .); f(1)", "path(def f: .a | f; f)", "path(reduce range(1e9) as $i (.; .a))"]
    {
        let mapping = Mapping::compile(text).unwrap();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let run = thread.spawn(move || mapping.run(&json!(null)).is_err()).unwrap();
        assert!(run.join().unwrap(), "{text}");
    }
}

#[test]
fn steps_alone_stop_a_loop_without_any_clock() {
    let mapping = Mapping::compile("last(range(1e12) | . * 2)").unwrap();
    assert_eq!(mapping.run(&json!(null)).unwrap_err().message, "mapping took too many steps");
}

#[test]
fn hostile_texts_are_errors() {
    for text in [
        "(".repeat(8000),
        "-".repeat(16_000),
        "[".repeat(16_000),
        ".|".repeat(8000),
        "try ".repeat(4000),
        "{a:".repeat(5000),
        " ".repeat(20_000),
    ] {
        assert!(Mapping::compile(&text).is_err());
    }
    let deep = format!("{}.{}", "[".repeat(8000), "]".repeat(8000));
    let mapping = Mapping::compile(&deep).unwrap();
    assert!(mapping.run(&json!(1)).is_err());
    let long = format!("{}.", ".|".repeat(8000));
    assert!(Mapping::compile(&long).unwrap().run(&json!(1)).is_err_and(|error| error.stopped));
}

#[test]
fn large_tables_and_texts_are_cut_without_a_difference() {
    let table: Vec<String> = (0..600).map(|n| format!("\"k{n}\": {n}")).collect();
    check(&format!("{{{}}} | length, .k599", table.join(", ")), json!(null), json!(600));
    let parts: String = (0..600).map(|_| "\\(.)-").collect();
    check(&format!("\"{parts}\" | length"), json!(7), json!(1200));
    let list: Vec<String> = (0..600).map(|n| n.to_string()).collect();
    check(&format!("[{}] | add", list.join(",")), json!(null), json!(179_700));
}

#[test]
fn mappings_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    shared(&Mapping::identity());
}

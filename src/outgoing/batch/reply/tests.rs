use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::request::{ApiPath, Method};
use crate::outgoing::batch::Key;

fn group(class: Class, kind: BatchReply, fields: &[&str]) -> Arc<Group> {
    let path = ApiPath::render("/v3/things", |_| None).unwrap();
    let frame = Frame::Body { before: Bytes::from_static(b"["), after: Bytes::from_static(b"]") };
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let (method, query, max) = (Method::Put, Vec::new(), 10);
    Arc::new(Group { method, path, query, frame, max, reply: kind, fields, class })
}

fn parts_of(group: &Arc<Group>, items: &[Value]) -> Vec<Part> {
    let part = |item: &Value| {
        let find = |field: &str| item.get(field).and_then(crate::outgoing::plan::scalar);
        let keys: Vec<Key> = Key::new(&group.fields, find).into_iter().collect();
        Part { group: group.clone(), items: item.to_string().into(), count: 1, keys: keys.into() }
    };
    items.iter().map(part).collect()
}

/// Things 11, 12 and 13 with their skus.
fn three() -> Vec<Value> {
    vec![json!({"id": 11}), json!({"id": "12"}), json!({"sku": "S-13"})]
}

fn reply(answer: Answer, status: u16, body: &str) -> Reply {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Reply { answer, status, body, request_id: Some("r".into()), detail: "said so".into() }
}

/// A verdict in a word: `written <body>`, `again <most>`, `doubtful <most>`, or the answer as it is.
fn word(verdict: &Verdict) -> String {
    let most = verdict.most.map_or("any".to_owned(), |most| most.to_string());
    match &verdict.said {
        Said::Again => format!("again {most}"),
        Said::Reply(reply) if reply.answer == Answer::Done => {
            format!("written {}", String::from_utf8_lossy(&reply.body))
        }
        Said::Reply(reply) if reply.answer == Answer::Doubtful => format!("doubtful {most}"),
        Said::Reply(reply) => format!("{:?} {most}", reply.answer),
    }
}

#[track_caller]
fn check(class: Class, answer: Answer, status: u16, body: &Value, expected: &[&str]) {
    let group = group(class, BatchReply::Rows, &["id", "sku"]);
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    let verdicts = read(&parts_of(&group, &three()), None, &reply(answer, status, &text));
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), expected, "{class:?} {status} {text}");
}

#[test]
fn rows_of_a_success_are_told_by_their_keys_in_whatever_order() {
    let rows = json!([{"id": 13, "sku": "s-13"}, {"id": 12, "sku": "x"}, {"id": 11, "sku": "y"}]);
    let expected = [
        r#"written {"id":11,"sku":"y"}"#,
        r#"written {"id":12,"sku":"x"}"#,
        r#"written {"id":13,"sku":"s-13"}"#,
    ];
    check(Class::A, Answer::Done, 200, &json!({"data": rows, "meta": {}}), &expected);
    check(Class::A, Answer::Done, 200, &rows, &expected);
}

#[test]
fn rows_that_cannot_be_told_are_the_items_in_their_order_if_they_are_as_many() {
    let rows = json!({"data": [{"n": 1}, {"n": 2}, {"n": 3}]});
    check(
        Class::A,
        Answer::Done,
        200,
        &rows,
        &[r#"written {"n":1}"#, r#"written {"n":2}"#, r#"written {"n":3}"#],
    );
    check(Class::A, Answer::Done, 200, &json!({"data": [{"n": 1}, {"n": 2}]}), &["again 1"; 3]);
}

#[test]
fn a_row_that_the_store_changed_is_told_by_its_place_if_all_others_stand_in_theirs() {
    let rows = json!({"data": [{"id": 11}, {"id": 12}, {"sku": "S13"}]});
    let expected = [r#"written {"id":11}"#, r#"written {"id":12}"#, r#"written {"sku":"S13"}"#];
    for class in [Class::A, Class::B] {
        check(class, Answer::Done, 200, &rows, &expected);
    }
    for (rows, expected) in [
        (
            json!([{"id": 12}, {"id": 11}, {"sku": "S13"}]),
            [r#"written {"id":11}"#, r#"written {"id":12}"#, "doubtful 1"],
        ),
        (
            json!([{"id": 11}, {"id": 11}, {"sku": "S-13"}]),
            [r#"written {"id":11}"#, "doubtful 1", r#"written {"sku":"S-13"}"#],
        ),
        (json!([{"id": 11}, {"sku": "S13"}]), [r#"written {"id":11}"#, "doubtful 1", "doubtful 1"]),
    ] {
        check(Class::B, Answer::Done, 200, &rows, &expected);
    }
    check(
        Class::B,
        Answer::Partial,
        207,
        &rows,
        &[r#"written {"id":11}"#, r#"written {"id":12}"#, "doubtful 2"],
    );
}

#[test]
fn a_row_that_a_success_leaves_out_was_not_written() {
    let rows = json!({"data": [{"id": 11}, {"sku": "S-13"}]});
    check(
        Class::A,
        Answer::Done,
        200,
        &rows,
        &[r#"written {"id":11}"#, "again 1", r#"written {"sku":"S-13"}"#],
    );
    check(
        Class::B,
        Answer::Done,
        200,
        &rows,
        &[r#"written {"id":11}"#, "doubtful 1", r#"written {"sku":"S-13"}"#],
    );
    check(Class::A, Answer::Done, 200, &json!({"data": []}), &["again 1"; 3]);
}

#[test]
fn a_success_that_says_nothing_of_items_is_that_of_all() {
    for body in [json!(""), json!({}), json!({"transaction_id": "t"}), json!({"data": {}})] {
        let written = format!("written {}", body.as_str().map_or_else(|| body.to_string(), str::to_owned));
        check(Class::A, Answer::Done, 200, &body, &[written.as_str(); 3]);
    }
    let group = group(Class::A, BatchReply::Nothing, &["id", "sku"]);
    let large = json!({"data": vec!["x".repeat(100); 1_000]}).to_string();
    for verdict in read(&parts_of(&group, &three()), None, &reply(Answer::Done, 200, &large)) {
        assert_eq!(word(&verdict), "written ", "a large body is not everybody's");
    }
}

#[test]
fn errors_name_items_in_every_documented_shape() {
    let problem = |errors: Value| json!({"status": 422, "title": "t", "type": "x", "errors": errors});
    for body in [
        problem(json!({"1.name": "is taken"})),
        problem(json!({"items.1.quantity": "is too small"})),
        problem(json!({"data[1].name": "is too long"})),
        problem(json!({"1": "is wrong"})),
        problem(json!({"12": "does not exist"})),
        problem(json!({"ids": [12]})),
        problem(json!({"product_id": ["12", "77"]})),
        json!({"errors": [problem(json!({"1.key": "is taken"}))], "meta": {"total": 3, "success": 0, "failed": 1}}),
        json!({"errors": [{"status": 422, "id": 12, "title": "t"}]}),
        json!({"errors": [{"index": 1, "title": "t"}]}),
        json!({"batch_errors": [{"data": {"id": 12}, "field_errors": {"price": "is too low"}}]}),
        json!({"batch_errors": [{"id": "12", "errors": {"price": "is too low"}}]}),
        json!({"data": {"id": 12, "price": -1}, "field_errors": {"price": "is too low"}}),
        json!([{"status": 422, "message": "m", "details": {"x": 1}, "id": 12}]),
        json!([{"status": 422, "message": "m", "item": {"id": 12}}]),
    ] {
        check(Class::A, Answer::Invalid, 422, &body, &["again 2", "again 1", "again 2"]);
        check(Class::A, Answer::Conflict, 409, &body, &["again 2", "again 1", "again 2"]);
        check(Class::B, Answer::Invalid, 422, &body, &["doubtful 2", "doubtful 1", "doubtful 2"]);
    }
}

#[test]
fn what_names_nothing_is_halved() {
    for body in [
        json!(""),
        json!("no"),
        json!("<html>no</html>"),
        json!({"status": 422, "title": "no", "errors": {}}),
        json!({"status": 422, "errors": {"name": "is taken"}}),
        json!({"status": 422, "errors": {"9.name": "is taken"}}),
        json!({"code": 1, "message": "no"}),
        json!([{"status": 400, "message": "no"}]),
        json!({"batch_errors": []}),
        json!({"errors": "no", "batch_errors": null, "field_errors": 7}),
    ] {
        check(Class::A, Answer::Invalid, 422, &body, &["again 2"; 3]);
        check(Class::A, Answer::Missing, 404, &body, &["again 2"; 3]);
        check(Class::B, Answer::Conflict, 409, &body, &["doubtful 2"; 3]);
    }
}

#[test]
fn as_many_errors_as_items_name_all_of_them() {
    let body = json!({"errors": [{"title": "a"}, {"title": "b"}, {"title": "c"}]});
    check(Class::A, Answer::Invalid, 422, &body, &["again 1"; 3]);
}

#[test]
fn what_a_refusal_did_write_is_written() {
    let body = json!({
        "data": [{"id": 11}, {"sku": "S-13"}],
        "errors": [{"status": 422, "title": "t", "errors": {"1.value": "is too long"}}],
        "meta": {"total": 3, "success": 2, "failed": 1},
    });
    for (answer, status) in [(Answer::Invalid, 422), (Answer::Partial, 207)] {
        check(
            Class::A,
            answer,
            status,
            &body,
            &[r#"written {"id":11}"#, "again 1", r#"written {"sku":"S-13"}"#],
        );
        check(
            Class::B,
            answer,
            status,
            &body,
            &[r#"written {"id":11}"#, "doubtful 1", r#"written {"sku":"S-13"}"#],
        );
    }
}

#[test]
fn of_a_partial_success_only_what_has_a_row_and_no_error_is_written() {
    let body = json!({"data": [{"id": 11}, {"id": 12}], "errors": {"1.url": "is taken"}});
    check(Class::A, Answer::Partial, 207, &body, &[r#"written {"id":11}"#, "again 1", "again 2"]);
    check(Class::A, Answer::Partial, 207, &json!({}), &["again 2"; 3]);
    check(Class::B, Answer::Partial, 207, &json!({}), &["doubtful 2"; 3]);
}

#[test]
fn too_large_a_request_is_halved_whatever_its_class() {
    for class in [Class::A, Class::B] {
        check(class, Answer::Invalid, 413, &json!({"errors": {"1.name": "x"}}), &["again 2"; 3]);
    }
}

#[test]
fn what_is_about_the_store_is_told_to_all_and_so_is_a_denial_unless_it_may_be_about_one() {
    let after = std::time::Duration::from_secs(3);
    check(Class::A, Answer::Busy { after }, 429, &json!(""), &["Busy { after: 3s } any"; 3]);
    check(Class::A, Answer::Unauthorized, 401, &json!(""), &["Unauthorized any"; 3]);
    check(Class::A, Answer::Doubtful, 503, &json!("<html>"), &["doubtful any"; 3]);
    check(Class::A, Answer::Forbidden, 403, &json!({}), &["Forbidden any"; 3]);
    check(Class::A, Answer::Forbidden, 403, &json!({"errors": {"1.key": "is another's"}}), &["again 1"; 3]);
    let group = group(Class::A, BatchReply::Rows, &["id", "sku"]);
    let path = ApiPath::render("/v3/store/metafields", |_| None).unwrap();
    let group = Group {
        path,
        frame: Frame::Query("id:in".into()),
        fields: group.fields.clone(),
        query: vec![],
        ..*group
    };
    let verdicts = read(&parts_of(&Arc::new(group), &three()), None, &reply(Answer::Forbidden, 403, "{}"));
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), ["again 1"; 3]);
}

#[test]
fn a_second_refusal_is_halved_even_where_it_names_items() {
    let group = group(Class::A, BatchReply::Rows, &["id"]);
    let items: Vec<Value> = (0..9).map(|id| json!({"id": id + 100})).collect();
    let body = json!({"errors": {"4.name": "x"}}).to_string();
    let verdicts = read(&parts_of(&group, &items), Some(9), &reply(Answer::Invalid, 422, &body));
    let expected: Vec<&str> = (0..9).map(|at| if at == 4 { "again 1" } else { "again 5" }).collect();
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), expected);
}

#[test]
fn a_command_of_several_items_is_written_when_all_of_them_are() {
    let group = group(Class::A, BatchReply::Rows, &["id"]);
    let key = |id: &str| Key(Box::new([Some(id.into())]));
    let part = |ids: &[&str]| Part {
        group: group.clone(),
        items: Bytes::new(),
        count: ids.len(),
        keys: ids.iter().map(|id| key(id)).collect(),
    };
    let parts = [part(&["1", "2"]), part(&["3", "4"]), part(&["5"])];
    let rows = json!({"data": [{"id": 5}, {"id": 2}, {"id": 1}, {"id": 3}]}).to_string();
    let verdicts = read(&parts, None, &reply(Answer::Done, 200, &rows));
    let words: Vec<String> = verdicts.iter().map(word).collect();
    assert_eq!(words, [r#"written [{"id":1},{"id":2}]"#, "again 1", r#"written {"id":5}"#]);
    let errors = json!({"errors": {"items.3.x": "no"}}).to_string();
    let verdicts = read(&parts, None, &reply(Answer::Invalid, 422, &errors));
    let words: Vec<String> = verdicts.iter().map(word).collect();
    assert_eq!(words, ["again 3", "again 1", "again 3"]);
}

#[test]
fn a_row_is_a_slice_of_the_reply_and_not_a_copy() {
    let group = group(Class::A, BatchReply::Rows, &["id", "sku"]);
    let body = json!({"data": [{"id": 11}, {"id": 12}, {"sku": "S-13"}]}).to_string();
    let reply = reply(Answer::Done, 200, &body);
    for verdict in read(&parts_of(&group, &three()), None, &reply) {
        let Said::Reply(own) = verdict.said else { panic!("it was written") };
        let whole = reply.body.as_ptr_range();
        assert!(whole.contains(&own.body.as_ptr()));
    }
}

/// Bodies that hold all the words that mean something, in any place.
fn body() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "data",
        "errors",
        "batch_errors",
        "field_errors",
        "meta",
        "id",
        "sku",
        "0.name",
        "items.1.x",
        "index",
        "12",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..20u64).prop_map(Value::from),
        "[a-z0-9]{0,4}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_the_reply_is_each_command_has_one_verdict_and_goes_on_smaller(
        body in body(),
        cut in any::<prop::sample::Index>(),
        answer in prop::sample::select(vec![
            Answer::Done, Answer::Partial, Answer::Invalid, Answer::Conflict, Answer::Missing, Answer::Forbidden,
        ]),
        kind in prop::sample::select(vec![BatchReply::Rows, BatchReply::Nothing]),
        class in prop::sample::select(vec![Class::A, Class::B]),
        count in 2..8usize,
        was_refused in any::<bool>(),
    ) {
        let group = group(class, kind, &["id", "sku"]);
        let items: Vec<Value> = (0..count).map(|at| json!({"id": at * 6})).collect();
        let mut text = body.to_string();
        if text.is_ascii() && cut.index(3) == 0 {
            text.truncate(cut.index(text.len() + 1));
        }
        let most = was_refused.then_some(count);
        let verdicts = read(&parts_of(&group, &items), most, &reply(answer, 422, &text));
        prop_assert_eq!(verdicts.len(), count);
        for verdict in verdicts {
            match (&verdict.said, verdict.most) {
                (Said::Reply(reply), _) if reply.answer == Answer::Done => {}
                (Said::Again, Some(most)) => {
                    prop_assert!(most <= count && (most < count || !was_refused), "it would go round for ever");
                    prop_assert!(class == Class::A || answer == Answer::Forbidden, "a create is not sent again");
                }
                (Said::Reply(reply), _) if answer == Answer::Forbidden => prop_assert_eq!(reply.answer, answer),
                (Said::Reply(reply), Some(_)) => prop_assert_eq!(reply.answer, Answer::Doubtful),
                (said, most) => prop_assert!(false, "{said:?} {most:?}"),
            }
        }
    }
}

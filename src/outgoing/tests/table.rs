//! What each answer means under each class, and what is sent because of it.

use super::*;

const FOUND: &str = r#"{"data":[{"id":5,"sku":"S-1","name":"New"}]}"#;

#[test]
fn an_update_is_sent_as_it_came_and_its_result_tells_all() {
    let body = "{\"data\":{\"id\":77,\"price\":\"10.00\", \"x\":1.50}}";
    let mut bench = Bench::new(FakeStore::scripted(vec![done(body)]));
    let value = br#"{"entity":"product","action":"update","path":{"product_id":"77"},"query":{"include_fields":"name","n":1},"payload":{ "price" : 1.50 }}"#;
    let mut sent = record(9, Some("k"), Some(value));
    sent.headers = vec![("traceparent".to_owned(), Bytes::from_static(b"00-aa-bb-01"))];
    bench.accept(sent);
    bench.run();
    assert_eq!(
        bench.store.sent(),
        ["PUT /v3/catalog/products/77?include_fields=name&n=1 { \"price\" : 1.50 }"]
    );
    let settled = &bench.settled[0];
    assert_eq!(
        result(settled),
        json!({
            "id": "bigcommerce.main.commands/3/9", "entity": "product", "action": "update", "outcome": "applied",
            "status": 200, "resource_id": "77", "body": {"data": {"id": 77, "price": "10.00", "x": 1.50}},
            "request_id": "r-200", "attempts": 1, "class": "A",
        })
    );
    let record = of_topic(settled, RESULTS)[0];
    assert!(String::from_utf8_lossy(record.value.as_ref().unwrap()).contains(body), "the body is as it came");
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(header_of(record, "bc_outcome").unwrap(), "applied");
    assert_eq!(header_of(record, "bc_command").unwrap(), "bigcommerce.main.commands/3/9");
    assert_eq!(header_of(record, "traceparent").unwrap(), "00-aa-bb-01");
    assert!(of_topic(settled, DLQ).is_empty());
    assert!(bench.log.records.lock().unwrap().is_empty(), "class A needs no intent");
}

/// One reply, then success (for class B: a probe that finds nothing twice, then success).
#[test]
fn each_answer_under_each_class_ends_as_it_must() {
    let answers = [
        (Answer::Done, 200, ["applied", "applied", "applied"], ""),
        (Answer::Partial, 207, ["partial", "partial", "partial"], ""),
        (Answer::Missing, 404, ["rejected", "rejected", "rejected"], "missing"),
        (Answer::Conflict, 409, ["rejected", "rejected", "rejected"], "conflict"),
        (Answer::Invalid, 422, ["rejected", "rejected", "rejected"], "refused"),
        (Answer::Forbidden, 403, ["rejected", "rejected", "rejected"], "denied"),
        (Answer::Unauthorized, 401, ["applied", "applied", "applied"], ""),
        (Answer::Busy { after: Duration::from_secs(2) }, 429, ["applied", "applied", "applied"], ""),
        (Answer::Doubtful, 503, ["applied", "applied", "unknown"], "in_doubt"),
    ];
    for (answer, status, outcomes, reason) in answers {
        for ((class, value), outcome) in
            [("A", update()), ("B", create()), ("C", shipment())].into_iter().zip(outcomes)
        {
            let store = FakeStore::new(move |request, number| match (number, request.method.as_str()) {
                (1, _) => reply(answer, status, "{\"title\":\"t\"}"),
                (_, "GET") => nothing(),
                _ => done("{\"data\":{\"id\":1}}"),
            });
            let mut bench = Bench::new(store);
            let got = bench.apply(&value);
            let case = format!("class {class}, {answer:?}");
            assert_eq!(got["outcome"], outcome, "{case}");
            assert_eq!(got["class"], class, "{case}");
            let failed = matches!(outcome, "rejected" | "unknown");
            assert_eq!(got["reason"], if failed { json!(reason) } else { Value::Null }, "{case}");
            let letters = of_topic(&bench.settled[0], DLQ);
            assert_eq!(letters.len(), usize::from(failed), "{case}");
            if failed {
                assert_eq!(header_of(letters[0], "bc_dlq_reason").unwrap(), reason, "{case}");
                assert_eq!(
                    header_of(letters[0], "bc_dlq_http_status").unwrap(),
                    status.to_string(),
                    "{case}"
                );
                assert_eq!(
                    header_of(letters[0], "bc_dlq_response_body").unwrap(),
                    "{\"title\":\"t\"}",
                    "{case}"
                );
                assert_eq!(letters[0].value, command(7, &value).value, "{case}");
            }
            let writes = bench.store.sent().iter().filter(|line| !line.starts_with("GET")).count();
            if class == "C" && answer == Answer::Doubtful {
                assert_eq!(writes, 1, "class C is never sent again");
            }
            assert_eq!(got["attempts"], writes, "{case}");
        }
    }
}

#[test]
fn a_delete_that_finds_nothing_is_done_where_the_row_says_so_or_it_was_in_doubt() {
    let delete = json!({"entity": "customer", "action": "delete", "path": {"customer_id": 9}});
    let mut bench = Bench::new(FakeStore::scripted(vec![reply(Answer::Missing, 404, "")]));
    assert_eq!(bench.apply(&delete)["outcome"], "applied");
    assert_eq!(bench.store.sent(), ["DELETE /v3/customers?id:in=9"]);
}

#[test]
fn a_create_in_doubt_is_found_by_its_key_and_not_sent_again() {
    let other = r#"{"data":[{"id":4,"sku":"S-10"},{"id":5,"sku":"S-1","name":"New"}]}"#;
    let mut bench = Bench::new(FakeStore::scripted(vec![doubtful(), done(other)]));
    let got = bench.apply(&create());
    assert_eq!(
        (&got["outcome"], &got["resource_id"], &got["attempts"]),
        (&json!("applied"), &json!("5"), &json!(1))
    );
    assert!(got["detail"].as_str().unwrap().contains("found by probe"), "{got}");
    assert_eq!(bench.store.sent()[1], "GET /v3/catalog/products?sku=S-1&limit=250");
}

#[test]
fn a_create_in_doubt_is_sent_again_after_two_probes_found_nothing() {
    let replies = vec![doubtful(), nothing(), busy(), nothing(), done(r#"{"data":{"id":6}}"#)];
    let mut bench = Bench::new(FakeStore::scripted(replies));
    let got = bench.apply(&create());
    assert_eq!(
        (&got["outcome"], &got["resource_id"], &got["attempts"]),
        (&json!("applied"), &json!("6"), &json!(2))
    );
}

#[test]
fn a_create_that_meets_itself_is_applied_and_one_that_meets_another_is_not() {
    let conflict = || reply(Answer::Conflict, 409, "{}");
    let replies = vec![doubtful(), nothing(), nothing(), conflict(), done(FOUND)];
    let got = Bench::new(FakeStore::scripted(replies)).apply(&create());
    assert_eq!((&got["outcome"], &got["resource_id"]), (&json!("applied"), &json!("5")));
    let replies = vec![doubtful(), nothing(), nothing(), conflict(), nothing()];
    let got = Bench::new(FakeStore::scripted(replies)).apply(&create());
    assert_eq!(
        (&got["outcome"], &got["reason"], &got["status"]),
        (&json!("rejected"), &json!("conflict"), &json!(409))
    );
}

#[test]
fn an_address_is_found_however_it_is_written() {
    let value = json!({"entity": "customer", "action": "create", "payload": {"email": "Ann@Example.com"}});
    let found = done(r#"{"data":[{"id":12,"email":"ann@example.COM"}]}"#);
    let mut bench = Bench::new(FakeStore::scripted(vec![doubtful(), found]));
    assert_eq!(bench.apply(&value)["resource_id"], "12");
    assert_eq!(bench.store.sent()[0], r#"POST /v3/customers [{"email":"Ann@Example.com"}]"#);
    assert_eq!(bench.store.sent()[1], "GET /v3/customers?email:in=Ann@Example.com&limit=250");
}

#[test]
fn a_create_without_its_natural_key_is_class_c() {
    let value = json!({"entity": "product", "action": "create", "payload": {"price": 1, "sku": " "}});
    let got = Bench::new(FakeStore::scripted(vec![doubtful()])).apply(&value);
    assert_eq!((&got["outcome"], &got["class"]), (&json!("unknown"), &json!("C")));
}

#[test]
fn an_order_update_that_adds_lines_is_class_c() {
    let update = |products: Value| json!({"entity": "order", "action": "update", "path": {"order_id": 250}, "payload": {"products": products}});
    for (products, class) in [
        (json!([{"id": 1, "quantity": 2}]), "A"),
        (json!([{"id": 1}, {"product_id": 9}]), "C"),
        (json!([{"id": 0}]), "C"),
        (json!([{"id": null}]), "C"),
        (json!({"product_id": 9}), "C"),
        (json!([]), "A"),
    ] {
        let store = FakeStore::new(|_, number| if number == 1 { doubtful() } else { done("{\"id\":250}") });
        let got = Bench::new(store).apply(&update(products.clone()));
        assert_eq!(got["class"], class, "{products}");
        assert_eq!(got["outcome"], if class == "A" { "applied" } else { "unknown" }, "{products}");
    }
}

#[test]
fn an_upsert_updates_what_it_finds_and_creates_what_it_does_not() {
    let upsert =
        json!({"entity": "customer", "action": "upsert", "payload": {"email": "a@example.com", "n": 1.0}});
    let found = || done(r#"{"data":[{"id":12,"email":"a@example.com"}]}"#);
    let mut bench = Bench::new(FakeStore::scripted(vec![found(), doubtful(), found()]));
    let got = bench.apply(&upsert);
    assert_eq!(
        (&got["outcome"], &got["resource_id"], &got["attempts"]),
        (&json!("applied"), &json!("12"), &json!(2))
    );
    assert_eq!(bench.store.sent()[1], r#"PUT /v3/customers [{"id":12,"email":"a@example.com","n":1.0}]"#);

    let created = done(r#"{"data":[{"id":13,"email":"a@example.com"}]}"#);
    let mut bench = Bench::new(FakeStore::scripted(vec![nothing(), created]));
    assert_eq!(bench.apply(&upsert)["resource_id"], "13");
    assert!(bench.store.sent()[1].starts_with("POST /v3/customers [{"));

    // It came between the probe and the create.
    let replies = vec![nothing(), reply(Answer::Conflict, 409, ""), found(), done("")];
    let got = Bench::new(FakeStore::scripted(replies)).apply(&upsert);
    assert_eq!((&got["outcome"], &got["resource_id"]), (&json!("applied"), &json!("12")));

    // It went between the probe and the update, which says 200 and lists nothing.
    let created = done(r#"{"data":[{"id":14,"email":"a@example.com"}]}"#);
    let replies = vec![found(), done("{\"data\":[]}"), nothing(), created];
    let got = Bench::new(FakeStore::scripted(replies)).apply(&upsert);
    assert_eq!((&got["outcome"], &got["resource_id"]), (&json!("applied"), &json!("14")));

    // It came and went, for ever.
    let store = FakeStore::new(move |request, _| match request.method.as_str() {
        "GET" => found(),
        _ => reply(Answer::Missing, 404, ""),
    });
    let got = Bench::new(store).apply(&upsert);
    assert_eq!((&got["outcome"], &got["reason"]), (&json!("rejected"), &json!("missing")));

    let two = r#"{"data":[{"id":1,"email":"a@example.com"},{"id":2,"email":"A@example.com"}]}"#;
    let got = Bench::new(FakeStore::scripted(vec![done(two)])).apply(&upsert);
    assert_eq!((&got["outcome"], &got["reason"]), (&json!("rejected"), &json!("conflict")));
}

#[test]
fn a_store_that_never_makes_sense_uses_up_the_budget_and_no_more() {
    let mut bench = Bench::new(FakeStore::new(|_, _| doubtful()));
    bench.accept(command(1, &update()));
    let took = bench.run();
    let got = result(&bench.settled[0]);
    assert_eq!((&got["outcome"], &got["reason"]), (&json!("dead"), &json!("exhausted")));
    assert!(took >= Duration::from_secs(300) && took < Duration::from_secs(600), "{took:?}");
    assert!((8..=20).contains(&bench.store.sent().len()), "{}", bench.store.sent().len());
    assert_eq!(of_topic(&bench.settled[0], DLQ).len(), 1);
    // Of a create, nobody knows.
    let got = Bench::new(FakeStore::new(|_, _| doubtful())).apply(&create());
    assert_eq!((&got["outcome"], &got["reason"]), (&json!("unknown"), &json!("in_doubt")));
    // Unless each probe says that it is not there.
    let store = FakeStore::new(|r, _| if r.method.as_str() == "GET" { nothing() } else { doubtful() });
    let got = Bench::new(store).apply(&create());
    assert_eq!((&got["outcome"], &got["reason"]), (&json!("dead"), &json!("exhausted")));
}

#[test]
fn a_busy_store_uses_up_no_attempt_and_holds_no_slot() {
    let store = FakeStore::new(|request, number| match request.path.as_str() {
        "/v2/orders/1" if number < 100 => busy(),
        _ => done("{}"),
    });
    let mut bench = Bench::new(store);
    for offset in 0..200 {
        let mut value = note(if offset < 16 { 1 } else { offset });
        value["id"] = json!(offset.to_string());
        bench.accept(record(offset, None, Some(value.to_string().as_bytes())));
    }
    bench.run();
    let outcomes: Vec<Value> = bench.settled.iter().map(|s| result(s)["outcome"].clone()).collect();
    assert_eq!(outcomes, vec![json!("applied"); 200]);
    let last: Vec<i64> = bench.settled[184..].iter().map(|s| s.positions[0].offset).collect();
    assert!(last.iter().all(|offset| *offset < 16), "the others went ahead: {last:?}");
}

#[test]
fn a_bad_token_pauses_the_store_and_not_its_neighbour() {
    let (bad, good) =
        (FakeStore::new(|_, _| reply(Answer::Unauthorized, 401, "")), FakeStore::new(|_, _| done("{}")));
    let mut bench = Bench::new(bad.clone());
    let neighbour = Route { topic: "other".into(), store: "other".into(), ..route(&good) };
    bench.path = outgoing(vec![route(&bad), neighbour], &bench.log);
    for offset in 0..100 {
        bench.accept(record(
            offset,
            None,
            Some(note(1).to_string().replace("c-1", &offset.to_string()).as_bytes()),
        ));
        let of_other = note(1).to_string().replace("c-1", &format!("other-{offset}"));
        let mut of_other = record(offset, None, Some(of_other.as_bytes()));
        of_other.position.partition.topic = "other".into();
        bench.accept(of_other);
    }
    for _ in 0..500 {
        for job in bench.path.start(bench.now) {
            let brought = block_on(job);
            bench.settled.extend(bench.path.finish(brought, bench.now));
        }
    }
    assert_eq!(bench.settled.len(), 100, "the neighbour is done");
    assert!(bad.sent().len() <= 16, "one try of each slot: {}", bad.sent().len());
    bench.run();
    let dead: Vec<Value> = bench.settled[100..].iter().map(result).collect();
    assert_eq!(dead.len(), 100);
    assert!(dead.iter().all(|got| got["outcome"] == "dead" && got["reason"] == "denied"));
}

#[test]
fn nothing_is_sent_before_the_intent_is_durable() {
    for value in [create(), shipment()] {
        let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
        *bench.log.failures.lock().unwrap() = 3;
        bench.accept(command(1, &value));
        for job in bench.path.start(bench.now) {
            let brought = block_on(job);
            bench.path.finish(brought, bench.now);
        }
        assert!(bench.path.start(bench.now).is_empty() && bench.store.sent().is_empty());
        bench.run();
        assert_eq!(result(&bench.settled[0])["outcome"], "applied");
        let intents = bench.log.records.lock().unwrap();
        let intent: Value = serde_json::from_slice(intents[0].value.as_ref().unwrap()).unwrap();
        assert_eq!(
            (&intent["state"], &intent["offset"], &intent["partition"]),
            (&json!("intent"), &json!(1), &json!(3))
        );
    }
}

#[test]
fn a_crash_between_intent_and_outcome_parks_class_c_and_probes_class_b() {
    for (value, next, outcome) in [
        (shipment(), vec![], "unknown"),
        (create(), vec![done(FOUND)], "applied"),
        (create(), vec![nothing(), nothing(), done("{}")], "applied"),
    ] {
        let mut bench = Bench::new(FakeStore::scripted(vec![done("{}")]));
        bench.accept(command(1, &value));
        // The intent is durable and the request was sent; what it brought is lost.
        block_on(bench.path.start(bench.now).remove(0));
        bench.store = FakeStore::scripted(next);
        let mut bench = bench.crash();
        bench.accept(command(1, &value));
        bench.run();
        let got = result(&bench.settled[0]);
        assert_eq!(got["outcome"], outcome, "{value}");
        assert_eq!(of_topic(&bench.settled[0], DLQ).len(), usize::from(outcome == "unknown"));
    }
}

#[test]
fn an_id_that_comes_again_gets_the_stored_result_and_is_not_sent() {
    for value in [update(), create(), shipment()] {
        let mut bench = Bench::new(FakeStore::scripted(vec![done(r#"{"data":{"id":3},"id":3}"#)]));
        bench.accept(command(1, &value));
        bench.accept(record(2, Some("another key"), Some(value.to_string().as_bytes())));
        bench.run();
        let check = |settled: &Settled, first: &OutRecord| {
            let again = of_topic(settled, RESULTS)[0];
            assert_eq!(again.value, first.value);
            assert_eq!(header_of(again, "bc_replayed").as_deref(), Some("1"));
            assert_eq!(settled.records.len(), 1);
        };
        let first = of_topic(&bench.settled[0], RESULTS)[0].clone();
        assert_eq!(header_of(&first, "bc_replayed"), None);
        check(&bench.settled[1], &first);
        let mut bench = bench.crash();
        bench.accept(command(3, &value));
        bench.run();
        check(&bench.settled[0], &first);
    }
}

#[test]
fn a_dead_letter_that_is_replayed_is_tried_again_and_an_applied_command_is_not() {
    let replies = vec![reply(Answer::Invalid, 422, "{}"), done("{}")];
    let mut bench = Bench::new(FakeStore::scripted(replies));
    for offset in 1..4 {
        let mut again = command(offset, &update());
        if offset > 1 {
            again.headers = vec![("bc_dlq_replay_count".to_owned(), Bytes::from_static(b"1"))];
        }
        bench.accept(again);
    }
    bench.run();
    let outcomes: Vec<Value> = bench.settled.iter().map(|s| result(s)["outcome"].clone()).collect();
    assert_eq!(outcomes, ["rejected", "applied", "applied"]);
    assert_eq!(bench.store.sent().len(), 2);
}

#[test]
fn a_job_of_an_earlier_assignment_is_nobodys() {
    let mut bench = Bench::new(FakeStore::new(|_, _| done("{}")));
    bench.accept(command(1, &note(1)));
    let late = bench.path.start(bench.now).remove(0);
    bench.path.reset();
    bench.accept(command(1, &note(1)));
    let current = bench.path.start(bench.now).remove(0);
    assert!(bench.path.finish(block_on(late), bench.now).is_empty());
    assert_eq!(bench.path.finish(block_on(current), bench.now).len(), 1);
}

#[test]
fn a_reply_that_is_no_json_or_too_large_is_kept_as_text() {
    for (body, length) in
        [("<html>é</html>".to_owned(), 14), (format!("\"{}\"", "a".repeat(300_000)), 65_536)]
    {
        let got = Bench::new(FakeStore::scripted(vec![done(&body)])).apply(&update());
        assert_eq!(got["body"].as_str().unwrap().chars().count(), length);
    }
}

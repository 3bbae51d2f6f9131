//! The reply to the write of one command, sent alone.
//!
//! Endpoints that take many answer for one with a list as well, and some say 200 to a thing that they do not know: the
//! list is empty then. So a success counts only where the row says that rows are told and the command's are among them.
//!
//! Pure.

use super::Part;
use super::reply::{rows, says_why};
use crate::catalog::{BatchReply, Class};
use crate::model::request::{Answer, Reply};

/// The reply as it is meant. One without a list, or of an endpoint that tells no rows, is meant as it stands.
pub(crate) fn alone(part: &Part, reply: Reply) -> Reply {
    let tells =
        matches!(reply.answer, Answer::Done | Answer::Partial) && part.group.reply == BatchReply::Rows;
    let listed = tells.then(|| rows::rows(&reply.body)).flatten();
    let Some(listed) = listed else { return reply };
    let found = rows::of_parts(&part.group, std::slice::from_ref(part), &listed, true);
    if found.iter().all(Option::is_some) {
        return reply;
    }
    let some = part.count > 1 && !listed.is_empty();
    let (answer, detail) = match (reply.answer, part.group.class) {
        (Answer::Done, Class::A) if some => return Reply { answer: Answer::Partial, ..reply },
        (Answer::Done, Class::A) => {
            (Answer::Missing, "the store answered a success that does not list it, so it was not written")
        }
        (Answer::Partial, _) if !some && says_why(&reply.body) => {
            (Answer::Invalid, "the store did none of it; the body says why")
        }
        (Answer::Partial, Class::A) => return reply,
        _ => (Answer::Doubtful, "the store answered a success that does not list it"),
    };
    Reply { answer, detail: detail.to_owned(), ..reply }
}

/// Whether a reply is a list of nothing.
pub(crate) fn lists_nothing(body: &[u8]) -> bool {
    rows::rows(body).is_some_and(|rows| rows.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::super::{Frame, Group, Key};
    use super::*;
    use crate::model::request::{ApiPath, Method};

    fn part(class: Class, told: BatchReply, ids: &[&str]) -> Part {
        let path = ApiPath::render("/v3/things", |_| None).unwrap();
        let frame = Frame::Body { before: Bytes::from_static(b"["), after: Bytes::from_static(b"]") };
        let (method, query, fields) = (Method::Put, Vec::new(), vec!["id".to_owned()]);
        let group = Group { method, path, query, frame, max: 10, reply: told, fields, class };
        let keys = ids.iter().map(|id| Key(Box::new([Some((*id).into())]))).collect();
        Part { group: Arc::new(group), items: Bytes::new(), count: ids.len(), keys }
    }

    #[test]
    fn a_success_that_does_not_list_what_was_written_is_none() {
        let (rows, nothing) = (BatchReply::Rows, BatchReply::Nothing);
        let (done, partly) = (Answer::Done, Answer::Partial);
        let empty = json!({"data": [], "meta": {}});
        let others = json!({"data": [{"id": 8}, {"id": 9}]});
        let refused = json!({"data": [], "errors": {"0.name": "is taken"}});
        let of_one = json!({"data": [{"id": 7}], "errors": {"0.url": "is taken"}});
        let silent = json!({"data": [{"name": "x"}]});
        let changed = json!({"data": [{"id": 7}, {"id": "8 "}]});
        let of_another = json!({"data": [{"id": 9}, {"id": 7}]});
        let two = &["7", "8"][..];
        for (class, told, ids, answer, body, expected) in [
            (Class::A, rows, &["7"][..], done, &empty, Answer::Missing),
            (Class::A, rows, &["7"], done, &json!([]), Answer::Missing),
            (Class::A, rows, &["7"], done, &others, Answer::Missing),
            (Class::A, rows, two, done, &of_one, partly),
            (Class::A, rows, two, done, &changed, done),
            (Class::A, rows, two, done, &of_another, partly),
            (Class::A, rows, &["7"], partly, &refused, Answer::Invalid),
            (Class::B, rows, &["7"], partly, &refused, Answer::Invalid),
            (Class::A, rows, &["7"], partly, &of_one, partly),
            (Class::A, rows, &["7"], partly, &empty, partly),
            (Class::B, rows, &["7"], done, &empty, Answer::Doubtful),
            (Class::C, rows, &["7"], done, &empty, Answer::Doubtful),
            // Told by its place, by an object, or by nothing.
            (Class::A, rows, &["7"], done, &silent, done),
            (Class::A, rows, &["8"], done, &others, done),
            (Class::A, rows, &["7"], done, &json!({"data": {"id": 7}}), done),
            (Class::A, rows, &["7"], done, &json!({}), done),
            (Class::A, nothing, &["7"], done, &empty, done),
        ] {
            let whole = Reply {
                answer,
                status: 200,
                body: Bytes::from(Value::to_string(body)),
                request_id: None,
                detail: String::new(),
            };
            let meant = alone(&part(class, told, ids), whole.clone());
            assert_eq!(meant.answer, expected, "{class:?} {told:?} {ids:?} {answer:?} {body}");
            assert_eq!((meant.status, &meant.body), (200, &whole.body));
        }
    }
}

#!/usr/bin/env python3
"""A program that knows nothing of Writ but SQL and AMQP: it signs users up at application api, and reads the events.

    DATABASE_URL=… AMQP_URL=… python3 audit.py ann@example.com bob@example.com

It needs psycopg2 and pika (Debian: python3-psycopg2, python3-pika). For each user it prints one line of JSON.
"""

import json
import os
import sys

import pika
import psycopg2

EXCHANGE = "writ.event.user.authorized"
QUEUE = "audit.user.authorized"  # durable: what comes while this program is away waits here


def sign_up(db, number, email):
    """The user, and the intent to authorize them, in one transaction: both, or neither."""
    with db, db.cursor() as cursor:
        cursor.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (number, email))
        cursor.execute(
            "INSERT INTO writ.intents (kind, args, subjects) VALUES ('api.user.authorize', %s, %s) RETURNING id",
            (json.dumps({"user_id": number}), [f"user:{number}"]),
        )
        return cursor.fetchone()[0]


def main(emails):
    db = psycopg2.connect(os.environ["DATABASE_URL"])
    broker = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = broker.channel()
    channel.exchange_declare(EXCHANGE, "fanout", durable=True)
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(QUEUE, EXCHANGE)

    intents = {sign_up(db, number, email): email for number, email in enumerate(emails, 1)}
    seen = set()  # the broker may repeat an event; its source and id name it
    for method, properties, body in channel.consume(QUEUE, inactivity_timeout=30):
        if method is None:
            sys.exit("no event came for 30 s: is application api running?")
        attributes, data = properties.headers, json.loads(body)
        event = (attributes["cloudEvents_source"], attributes["cloudEvents_id"])
        if event not in seen and attributes["cloudEvents_tid"] in intents:
            seen.add(event)
            print(json.dumps({
                "type": attributes["cloudEvents_type"], "source": attributes["cloudEvents_source"], "time": attributes["cloudEvents_time"],
                "tid": attributes["cloudEvents_tid"], "user_id": data["user_id"], "email": data["email"],
            }), flush=True)
        channel.basic_ack(method.delivery_tag)  # only now: a program that dies before gets it again
        if len(seen) == len(intents):
            break
    channel.cancel()
    broker.close()
    db.close()


if __name__ == "__main__":
    main(sys.argv[1:])

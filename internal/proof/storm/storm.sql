-- The storm's own application: an order beside each creation, a receipt from the hook of job.Done, and what the recovery
-- function did.
CREATE TABLE proof.orders (id uuid PRIMARY KEY);
CREATE TABLE proof.receipts (intent_id uuid NOT NULL, epoch int NOT NULL);
CREATE TABLE proof.recoveries (intent_id uuid NOT NULL, epoch int NOT NULL);

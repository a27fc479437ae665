-- What is in force is counted every few seconds: by the index alone, however long the history.
CREATE INDEX escalations_by_state ON escalations (state);

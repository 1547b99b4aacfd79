// SPDX-License-Identifier: Apache-2.0
'use strict';

// An ordinary express application: exported instead of listening.
const express = require('express');

const app = express();
const notes = new Map([['1', { id: '1', text: 'Buy milk' }]]);

app.use(express.json({ limit: '6mb' }));

app.get('/notes', (req, res) => {
	res.json([...notes.values()]);
});

app.get('/notes/:id', (req, res) => {
	const note = notes.get(req.params.id);
	if (!note) return res.status(404).json({ error: `there is no note ${req.params.id}` });
	res.json(note);
});

app.post('/notes', (req, res) => {
	const note = { id: String(notes.size + 1), text: String(req.body.text ?? '') };
	notes.set(note.id, note);
	res.status(201).location(`/notes/${note.id}`).json(note);
});

// what nestctl invoke calls: POST / with the event as its body
app.post('/', (req, res) => {
	res.json({ notes: notes.size, echo: req.body });
});

exports.handler = app;

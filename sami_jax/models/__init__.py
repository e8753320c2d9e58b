"""One decoder-only transformer for the Llama and Mistral families, with Hugging Face import and export."""
